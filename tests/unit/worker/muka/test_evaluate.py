import json
import math
from dataclasses import asdict

import pytest
import torch

from tests.unit.worker.muka.evidence import outputs
from worker.muka.evaluate import (
    agreement,
    calibration_error,
    choice_statistics,
    evaluate,
    orphans,
    predictive_entropy,
)
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence, Muka, TeacherChoice
from worker.muka.recipe import SCORES
from worker.muka.scoring import unsampled


class TestEvaluate:
    def test_a_hand_computed_example(self):
        result = evaluate(torch.tensor([0, 0, 1, 1]), ["a", "b", "b", "b"], ["a", "b", "c"])
        assert result.accuracy == 0.75
        a, b = result.per_label
        assert (a.support, a.predicted, a.precision, a.recall) == (1, 2, 0.5, 1.0)
        assert a.f1 == pytest.approx(2 / 3)
        assert (b.precision, b.recall, b.f1) == (1.0, pytest.approx(2 / 3), pytest.approx(0.8))
        assert result.macro_f1 == pytest.approx((2 / 3 + 0.8) / 2)
        assert result.confusion == {("a", "a"): 1, ("b", "a"): 1, ("b", "b"): 2}

    def test_probabilities_do_as_well_as_indices(self):
        p = torch.tensor([[0.9, 0.1], [0.2, 0.8]])
        assert evaluate(p, ["a", "a"], ["a", "b"]).accuracy == 0.5

    def test_gold_labels_outside_of_the_label_space_count_as_wrong_and_are_named(self):
        result = evaluate(torch.tensor([0, 0]), ["a", "z"], ["a", "b"])
        assert result.accuracy == 0.5
        assert result.unknown_labels == ("z",)
        assert result.macro_f1 == pytest.approx((2 / 3 + 0) / 2)

    def test_gold_names_are_normalised_like_labels(self):
        assert evaluate(torch.tensor([0]), [" cafe\u0301"], ["caf\u00e9", "b"]).accuracy == 1.0

    @pytest.mark.parametrize("gold", [[], ["a"]])
    def test_other_numbers_of_names_are_refused(self, gold):
        with pytest.raises(ValueError, match="gold has"):
            evaluate(torch.tensor([0, 1]), gold, ["a", "b"])


class TestCalibrationError:
    LABELS = ("a", "b")

    def test_a_hand_computed_example(self):
        p = torch.tensor([[0.9, 0.1], [0.91, 0.09], [0.3, 0.7], [1.0, 0.0]])
        # Three bins: {.9, .91} half right, {.7} right, {1} wrong: |.905-.5|·2/4 + |.7-1|/4 + |1-0|/4 = 0.5275
        assert calibration_error(*p.max(-1), ["a", "b", "b", "b"], self.LABELS) == pytest.approx(0.5275)

    def test_certain_and_right_is_perfect_and_certain_and_wrong_the_worst(self):
        p = torch.tensor([[1.0, 0.0]] * 3)
        assert calibration_error(*p.max(-1), [" a"] * 3, self.LABELS) == 0.0
        assert calibration_error(*p.max(-1), ["z"] * 3, self.LABELS) == 1.0


class TestOrphans:
    SPACE = LabelSpace.union([["a", "b"], ["c", "d", "e", "f", None]])

    def test_a_teacher_that_is_just_sure_enough_adopts_the_text(self):
        half = torch.tensor([[math.log(2) / 2 - 1e-4, math.log(4)], [math.log(2), math.log(4) / 2 - 1e-4]])
        assert orphans(self.SPACE, half).tolist() == [False, False]
        assert orphans(self.SPACE, half + 2e-4).tolist() == [True, True]

    @pytest.mark.parametrize("score", SCORES)
    def test_a_text_of_which_all_teachers_know_nothing_is_one_whatever_they_are_chosen_by(self, score):
        logits = [torch.tensor([[9.0, 0.0], [0.0, 0.0]]), torch.zeros(2, 5)]
        evidence = Evidence(self.SPACE, [outputs(each) for each in logits])
        u = Muka(score=score).supervise(evidence).choice.u
        assert u[0, 0] > u[0, 1] - 1e-6
        assert orphans(self.SPACE, predictive_entropy(self.SPACE, evidence.outputs)).tolist() == [False, True]


def test_agreement_is_measured_at_the_temperature_of_the_supervision():
    q, p = torch.tensor([[1.0, 3.0]]) / 4, torch.tensor([[1.0, 9.0]]) / 10
    assert agreement(p, q, temperature=2.0).mean_kl == pytest.approx(0.0, abs=1e-6)
    assert agreement(p, q).mean_kl > 0.01


def test_agreement_compares_best_labels_and_distributions():
    p = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    same = agreement(p, p)
    assert same.top1 == 1.0
    assert same.mean_kl == pytest.approx(0.0, abs=1e-6)
    other = agreement(torch.tensor([[0.25, 0.75]]), torch.tensor([[1.0, 0.0]]))
    assert (other.top1, other.mean_kl) == (0.0, pytest.approx(1.3862944))


def test_choice_statistics_are_plain_numbers():
    u = torch.tensor([[0.0, 1.0], [0.3, 0.2], [0.6, 0.9], [0.1, 0.9]])
    w = torch.tensor([[0.0, 1.0], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9]])
    statistics = choice_statistics(TeacherChoice(u, w, u.diff().abs().squeeze(-1)), bins=4)
    assert statistics.chosen_share == (0.25, 0.75)
    assert statistics.mean_score == pytest.approx((0.25, 0.75))
    assert statistics.score_histogram == ((2, 1, 1, 0), (1, 0, 0, 3))
    assert statistics.margin_histogram == (1, 1, 0, 2)  # 1, 0.1, 0.3, 0.8
    assert statistics.bin_edges == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert json.loads(json.dumps(asdict(statistics)))["mean_weight"] == pytest.approx([0.225, 0.775])


def test_predictive_entropy_is_that_of_the_kept_labels_in_nats():
    space = LabelSpace.union([["a", "b"], ["c", None, "d"]])
    sure = unsampled(Answer(torch.tensor([[50.0, 0.0], [0.0, 0.0]])))
    dropping = unsampled(Answer(torch.tensor([[0.0, 50.0, 0.0], [50.0, 0.0, 0.0]])))
    found = predictive_entropy(space, [sure, dropping])
    assert found.tolist() == [pytest.approx(row, abs=1e-6) for row in ([0, math.log(2)], [math.log(2), 0])]
