import math

import pytest
import torch
from torch import nn

from worker.muka.uncertainty import (
    TeacherBelief,
    bald,
    dropout_modules,
    enable_dropout,
    energy,
    entropy,
    entropy_score,
    max_probability,
)


class TestEntropyScore:
    def test_a_uniform_answer_scores_zero_whatever_the_number_of_classes(self):
        for C in (2, 3, 150):
            assert entropy_score(torch.full((C,), 1 / C), C).item() == pytest.approx(0.0, abs=1e-6)

    def test_probabilities_of_exactly_zero_and_one_score_one(self):
        assert entropy_score(torch.tensor([[0.0, 1.0, 0.0]]), 3).tolist() == [1.0]

    def test_a_hand_computed_value(self):
        expected = 1 + (0.9 * math.log(0.9) + 0.1 * math.log(0.1)) / math.log(2)
        assert entropy_score(torch.tensor([0.9, 0.1]), 2).item() == pytest.approx(expected, abs=1e-6)

    def test_it_stays_within_zero_and_one_in_spite_of_rounding(self):
        p = torch.softmax(torch.randn(1000, 7, generator=torch.Generator().manual_seed(0)) * 30, -1)
        u = entropy_score(p, 7)
        assert u.min() >= 0
        assert u.max() <= 1


def _belief(*passes: list[float]) -> TeacherBelief:
    p = torch.tensor([passes]).mean(1)
    each = torch.stack([entropy(torch.tensor([one])) for one in passes]).mean(0)
    return TeacherBelief(p, torch.zeros(1, p.shape[-1]), each, entropy(p), p.shape[-1])


class TestOtherScores:
    def test_max_probability_is_zero_at_chance_and_one_at_certainty(self):
        assert max_probability(_belief([0.5, 0.5])).item() == pytest.approx(0.0)
        assert max_probability(_belief([0.0, 1.0])).item() == pytest.approx(1.0)
        assert max_probability(_belief([0.4, 0.1, 0.4, 0.1])).item() == pytest.approx((0.4 - 0.25) / 0.75)

    def test_bald_is_zero_where_certain_passes_contradict_each_other(self):
        assert bald(_belief([1.0, 0.0], [0.0, 1.0])).item() == pytest.approx(0.0, abs=1e-6)

    def test_bald_is_one_where_passes_agree_even_on_a_uniform_answer(self):
        assert bald(_belief([0.5, 0.5], [0.5, 0.5])).item() == pytest.approx(1.0)

    def test_bald_of_two_passes_by_hand(self):
        # H(.7, .3) = .610864 and the mean of H(.9, .1) = .325083 and H(.5, .5) = .693147 is .509115
        assert bald(_belief([0.9, 0.1], [0.5, 0.5])).item() == pytest.approx(
            1 - 0.101749 / math.log(2), abs=1e-5
        )

    def test_energy_by_hand(self):
        # log(3 + 5) - log 2 = log 4 = 1.386294, and softsign(1.386294) = 1.386294 / 2.386294
        logits = torch.tensor([[3.0, 5.0]]).log()
        nothing = torch.zeros(1)
        scores = energy(TeacherBelief(logits.softmax(-1), logits, nothing, nothing, 2))
        assert scores.item() == pytest.approx(0.5 + 0.5 * 0.580941, abs=1e-5)

    def test_energy_grows_with_the_logits_and_stays_within_zero_and_one(self):
        logits = torch.tensor([[-50.0, -50.0], [0.0, 0.0], [5.0, 0.0], [500.0, 0.0]])
        nothing = torch.zeros(4)
        scores = energy(TeacherBelief(logits.softmax(-1), logits, nothing, nothing, 2))
        assert scores.tolist() == sorted(scores.tolist())
        assert scores[1].item() == pytest.approx(0.5)
        assert scores.min() > 0
        assert scores.max() < 1


class StableDropout(nn.Module):
    """Like the dropout classes that model libraries write for themselves."""

    drop_prob = 0.1


class TestEnableDropout:
    def test_only_dropout_layers_go_into_train_mode_and_all_modes_come_back(self):
        model = nn.Sequential(nn.Dropout(0.1), nn.BatchNorm1d(2), nn.Dropout2d(0.2), nn.Linear(2, 2)).eval()
        with enable_dropout(model):
            assert [m.training for m in model] == [True, False, True, False]
            assert not model.training
        assert not any(m.training for m in model.modules())

    def test_modes_come_back_after_an_error(self):
        model = nn.Sequential(nn.Dropout(0.1)).eval()
        with pytest.raises(RuntimeError), enable_dropout(model):
            raise RuntimeError
        assert not model[0].training

    @pytest.mark.parametrize(
        "layer",
        [
            nn.Dropout(0.1),
            nn.Dropout1d(0.1),
            nn.Dropout2d(0.1),
            nn.Dropout3d(0.1),
            nn.AlphaDropout(0.1),
            nn.FeatureAlphaDropout(0.1),
            StableDropout(),
        ],
    )
    def test_every_kind_of_dropout_layer_is_found(self, layer):
        assert dropout_modules(nn.Sequential(nn.Linear(2, 2), layer)) == [layer]

    def test_a_rate_of_zero_is_no_dropout(self):
        assert dropout_modules(nn.Sequential(nn.Dropout(0.0))) == []
