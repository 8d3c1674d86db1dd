"""The rivals that look at answers only: vanilla_kd, uhc and the ensemble, with numbers worked out by hand."""

import pytest
import torch

from tests.unit.worker.muka.evidence import Names, outputs, permuted, random_evidence
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Muka, get_method
from worker.muka.methods.ensemble import Ensemble

# With these logits divided by T, the exponentials are 1, 2, 3 and 4.
ONE_TWO, THREE_FOUR = torch.tensor([[1.0, 2.0]]).log(), torch.tensor([[3.0, 4.0]]).log()


def teachers(first: Names, second: Names, temperature: float = 1.0) -> Evidence:
    answers = [outputs(temperature * ONE_TWO), outputs(temperature * THREE_FOUR)]
    return Evidence(LabelSpace.union([first, second]), answers)


class TestVanillaKD:
    def test_one_softmax_over_all_logits_at_the_temperature(self):
        made = get_method("vanilla_kd").supervise(teachers(["a", "b"], ["c", "d"], temperature=5.0))
        torch.testing.assert_close(made.columns["q"], torch.tensor([[0.1, 0.2, 0.3, 0.4]]))

    def test_the_loss_is_the_divergence_times_the_square_of_the_temperature(self):
        made = get_method("vanilla_kd").supervise(teachers(["a", "b"], ["c", "d"], temperature=5.0))
        # KL([.1 .2 .3 .4] | uniform) = .1 ln .4 + .2 ln .8 + .3 ln 1.2 + .4 ln 1.6 = 0.1064402
        assert made.objective(Answer(torch.zeros(1, 4)), made.columns).item() == pytest.approx(25 * 0.1064402)
        perfect = Answer(5.0 * made.columns["q"].log())
        assert made.objective(perfect, made.columns).item() == pytest.approx(0.0, abs=1e-5)

    def test_a_shared_label_has_the_sum_of_its_classes(self):
        made = get_method("vanilla_kd", teacher_temperature=1.0).supervise(teachers(["a", "b"], ["b", "c"]))
        torch.testing.assert_close(made.columns["q"], torch.tensor([[0.1, 0.5, 0.4]]))

    def test_a_dropped_class_takes_no_part(self):
        logits = torch.cat([torch.tensor([[99.0]]), ONE_TWO], -1)
        evidence = Evidence(
            LabelSpace.union([[None, "a", "b"], ["c", "d"]]), [outputs(logits), outputs(THREE_FOUR)]
        )
        made = get_method("vanilla_kd", teacher_temperature=1.0).supervise(evidence)
        torch.testing.assert_close(made.columns["q"], torch.tensor([[0.1, 0.2, 0.3, 0.4]]))

    def test_two_classes_of_one_name_are_one(self):
        answers = [outputs(ONE_TWO), outputs(torch.tensor([[3.0, 4.0, 10.0]]).log())]
        evidence = Evidence(LabelSpace.union([["a", "b"], ["c", "c", "d"]]), answers)
        made = get_method("vanilla_kd", teacher_temperature=1.0).supervise(evidence)
        torch.testing.assert_close(made.columns["q"], torch.tensor([[0.05, 0.1, 0.35, 0.5]]))

    def test_identical_teachers_are_as_one(self):
        answer = outputs(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
        made = get_method("vanilla_kd").supervise(Evidence(LabelSpace.union([list("abc")] * 2), [answer] * 2))
        torch.testing.assert_close(made.columns["q"], (answer.logits / 5).softmax(-1))


class TestUHC:
    STUDENT = torch.tensor([[1.0, 1.0, 2.0]]).log()

    def evidence(self, temperature: float = 1.0) -> Evidence:
        answers = [torch.tensor([[1.0, 3.0]]).log(), torch.tensor([[1.0, 1.0]]).log()]
        space = LabelSpace.union([["a", "b"], ["b", "c"]])
        return Evidence(space, [outputs(temperature * logits) for logits in answers])

    @pytest.mark.parametrize("temperature", [1.0, 2.0])
    def test_each_teacher_is_compared_within_its_own_labels(self, temperature):
        made = get_method("uhc", teacher_temperature=temperature).supervise(self.evidence(temperature))
        loss = made.objective(Answer(temperature * self.STUDENT), made.columns)
        # Over a, b: KL([1/4 3/4] | [1/2 1/2]) = 0.1308120; over b, c: KL([1/2 1/2] | [1/3 2/3]) = 0.0588915
        assert loss.item() == pytest.approx(temperature**2 * (0.1308120 + 0.0588915), rel=1e-5)

    def test_it_is_the_renormalised_part_of_the_student_s_distribution(self):
        evidence = random_evidence(["a", "b", "c"], ["c", None, "d", "e"])
        made = get_method("uhc", teacher_temperature=1.0).supervise(evidence)
        s = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))
        expected = torch.zeros(())
        for i in range(2):
            part = s.softmax(-1)[:, evidence.label_space.indices(i)]
            part, p = part / part.sum(-1, keepdim=True), made.columns[f"p_{i}"]
            expected += (p * (p.log() - part.log())).sum(-1).mean()
        torch.testing.assert_close(made.objective(Answer(s), made.columns), expected)

    def test_how_the_student_divides_itself_between_the_teachers_is_left_open(self):
        made = get_method("uhc").supervise(random_evidence(["a", "b"], ["c", "d"]))
        s = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
        moved = s + torch.tensor([7.0, 7.0, 0.0, 0.0])
        torch.testing.assert_close(
            made.objective(Answer(s), made.columns), made.objective(Answer(moved), made.columns)
        )

    def test_identical_teachers_count_twice(self):
        answer = outputs(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))
        twice, distilled = (
            get_method(name).supervise(Evidence(LabelSpace.union([list("abc")] * 2), [answer] * 2))
            for name in ("uhc", "vanilla_kd")
        )
        s = Answer(torch.zeros(4, 3))
        torch.testing.assert_close(
            twice.objective(s, twice.columns), 2 * distilled.objective(s, distilled.columns)
        )

    def test_nothing_of_it_is_trained_or_kept_in_checkpoints(self):
        objective = get_method("uhc").supervise(self.evidence()).objective
        assert not objective.state_dict()
        assert "[0, 1]" in repr(objective)


class TestEnsemble:
    def test_its_answer_is_what_muka_teaches(self):
        evidence = random_evidence(["a", "b"], ["b", "c", "d"])
        muka = Muka(integration="hard", teacher_temperature=2.0, score="max_probability")
        answer = Ensemble.like(muka).supervise(evidence)
        torch.testing.assert_close(answer.columns["q"], muka.supervise(evidence).columns["q"])

    def test_beside_a_method_that_does_not_sample_it_does_not_either(self):
        assert Ensemble.like(get_method("uhc")).sampling.passes == 0
        assert Ensemble.like(Muka(mc_samples=5, mc_seed=7)).sampling == Muka(mc_samples=5, mc_seed=7).sampling


@pytest.mark.parametrize("name", ["muka", "vanilla_kd", "uhc", "ensemble"])
def test_permuting_the_teachers_permutes_nothing_but_the_label_order(name):
    evidence = random_evidence(["a", "b"], ["c", "d", "a"], ["e", None, "f"])
    other = permuted(evidence, [2, 0, 1])
    places = [evidence.label_space.label2id[label] for label in other.label_space.labels]
    s = torch.randn(6, len(places), generator=torch.Generator().manual_seed(1))
    one, two = get_method(name).supervise(evidence), get_method(name).supervise(other)
    torch.testing.assert_close(
        one.objective(Answer(s), one.columns), two.objective(Answer(s[:, places]), two.columns)
    )
