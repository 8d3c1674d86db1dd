import math

import pytest
import torch
from torch import nn

from tests.unit.worker.muka.evidence import outputs, random_evidence
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, GoldenKL, Muka, Supervision
from worker.muka.recipe import SCORES
from worker.muka.scoring import TeacherOutputs
from worker.muka.uncertainty import entropy_score


class TestMuka:
    def test_a_hand_computed_example(self):
        sure, unsure = torch.tensor([[0.0, 1.0]]), torch.tensor([[0.5, 0.5]])
        logits = [torch.tensor([[0.0, 2.0]]), torch.tensor([[1.0, 0.0]])]
        evidence = Evidence(
            LabelSpace.union([["a", "b"], ["c", "d"]]), [outputs(logits[0], sure), outputs(logits[1], unsure)]
        )
        made = Muka(integration="hard", teacher_temperature=2.0).supervise(evidence)
        p = torch.tensor([[0.0, 1.0]]).softmax(-1)
        torch.testing.assert_close(made.columns["q"], torch.cat([p, torch.zeros(1, 2)], -1))
        assert made.columns["m"].item() == pytest.approx(1.0)
        torch.testing.assert_close(made.choice.u, torch.tensor([[1.0, 0.0]]))
        assert made.objective.temperature == 2.0

    def test_without_reweighting_every_text_counts_the_same(self):
        made = Muka(reweight="none").supervise(random_evidence(["a", "b"], ["c", "d", "e"]))
        assert made.columns["m"].tolist() == [1.0] * 6
        assert made.choice.m.max() < 1

    def test_identical_teachers_get_uniform_weights_and_almost_no_margin(self):
        answer = outputs(torch.randn(4, 2, generator=torch.Generator().manual_seed(0)))
        evidence = Evidence(LabelSpace.union([["a", "b"], ["a", "b"]]), [answer, answer])
        made = Muka().supervise(evidence)
        torch.testing.assert_close(made.choice.w, torch.full((4, 2), 0.5))
        assert made.columns["m"].max() < 1e-5
        torch.testing.assert_close(made.columns["q"], answer.logits.softmax(-1))

    @pytest.mark.parametrize("integration", ["soft", "hard"])
    @pytest.mark.parametrize("score", SCORES)
    def test_certain_answers_and_a_batch_of_one_leave_everything_finite(self, score, integration):
        logits = torch.tensor([[1e4, 0.0, -1e4]])
        evidence = Evidence(
            LabelSpace.union([["a", "b", "c"], ["d", None, "e"]]), [outputs(logits), outputs(logits.flip(-1))]
        )
        made = Muka(score=score, integration=integration).supervise(evidence)
        s = torch.zeros(1, 5, requires_grad=True)
        made.objective(Answer(s), made.columns).backward()
        assert s.grad.isfinite().all()
        torch.testing.assert_close(made.columns["q"].sum(-1), torch.ones(1))
        assert (made.choice.u >= 0).all()
        assert (made.choice.u <= 1).all()

    def test_permuting_the_teachers_permutes_nothing_but_the_label_order(self):
        names: list[list[str | None]] = [["a", "b"], ["c", "d", "a"], ["e", None, "f"]]
        evidence = random_evidence(*names)
        order = [2, 0, 1]
        other = Evidence(LabelSpace.union([names[i] for i in order]), [evidence.outputs[i] for i in order])
        one, two = Muka().supervise(evidence), Muka().supervise(other)
        columns = [other.label_space.label2id[label] for label in evidence.label_space.labels]
        torch.testing.assert_close(two.columns["q"][:, columns], one.columns["q"])
        torch.testing.assert_close(two.columns["m"], one.columns["m"])
        torch.testing.assert_close(two.choice.u, one.choice.u[:, order])

    def test_a_dropped_label_counts_neither_for_the_answer_nor_for_the_certainty(self):
        p = torch.tensor([[0.98, 0.01, 0.01]])
        evidence = Evidence(
            LabelSpace.union([[None, "a", "b"], ["c", "d"]]), [outputs(p.log()), outputs(torch.zeros(1, 2))]
        )
        made = Muka().supervise(evidence)
        assert made.choice.u[0, 0].item() == pytest.approx(0.0, abs=1e-5)

    def test_energy_does_not_count_a_dropped_label(self):
        names: list[list[str | None]] = [[None, "a", "b"], ["c", "d"]]
        logits = torch.tensor([[50.0, math.log(3), math.log(5)]])
        evidence = Evidence(LabelSpace.union(names), [outputs(logits), outputs(torch.zeros(1, 2))])
        # as of ln 3 and ln 5 alone: see test_uncertainty
        assert Muka(score="energy").supervise(evidence).choice.u[0, 0].item() == pytest.approx(
            0.79047, abs=1e-5
        )

    def test_each_score_sees_what_it_is_made_of(self):
        p_hat, passes = torch.tensor([[0.7, 0.3]]), torch.tensor([2], dtype=torch.int16)
        sampled = TeacherOutputs(torch.tensor([[3.0, 5.0]]).log(), p_hat, passes, torch.tensor([0.509115]))
        evidence = Evidence(LabelSpace.union([["a", "b"], ["c", "d"]]), [sampled, outputs(torch.zeros(1, 2))])
        by_hand = {
            "entropy": 1 - 0.610864 / math.log(2),
            "bald": 1 - 0.101749 / math.log(2),
            "max_probability": 0.4,
            "energy": 0.79047,
        }
        found = {score: Muka(score=score).supervise(evidence).choice.u[0, 0].item() for score in SCORES}
        assert found == pytest.approx(by_hand, abs=1e-5)

    @pytest.mark.parametrize("integration", ["soft", "hard"])
    def test_the_least_temperatures_leave_everything_finite(self, integration):
        evidence = random_evidence(["a", "b"], ["c", "d"])
        made = Muka(integration=integration, temperature=1e-6, teacher_temperature=1e-6).supervise(evidence)
        assert made.columns["q"].isfinite().all()
        torch.testing.assert_close(made.columns["q"].sum(-1), torch.ones(6))

    def test_teachers_with_more_classes_are_not_taken_for_less_certain(self):
        wide = entropy_score(torch.full((50,), 0.02), 50)
        assert wide.item() == pytest.approx(entropy_score(torch.full((2,), 0.5), 2).item(), abs=1e-6)


class TestSupervision:
    def test_columns_of_different_lengths_are_refused(self):
        with pytest.raises(ValueError, match="columns have"):
            Supervision({"q": torch.ones(3, 2), "m": torch.ones(2)})

    def test_golden_kl_is_the_objective_unless_a_method_brings_its_own(self):
        assert isinstance(Supervision({"q": torch.ones(3, 2), "m": torch.ones(3)}).objective, GoldenKL)
        assert not list(GoldenKL().parameters())
        assert isinstance(GoldenKL(), nn.Module)
