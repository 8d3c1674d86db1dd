from functools import partial

import numpy as np
import pytest
import torch

from tests.tiny_models import TEXTS, make_teacher
from worker.muka import LabelSpace, Muka, Sampling, Training, amalgamate, score_shard, score_shard_adaptively
from worker.muka.adaptive import Samples, sample_until_decided, student_t
from worker.muka.forward import Answer
from worker.muka.methods import Evidence
from worker.muka.methods.choosing import teacher_scores
from worker.muka.teacher import Teacher

SETTINGS = {"shard": 0, "max_length": 32}
MOST = 12
ADAPTIVE = Sampling(passes=MOST, adaptive_bound=0.05)


def unsampled_answer(teacher: Teacher) -> Answer:
    return Answer(score_shard(teacher, TEXTS, sampling=Sampling(), **SETTINGS).logits)


def test_every_text_takes_between_two_passes_and_k_and_the_same_number_from_every_teacher(bank, travel):
    outputs = score_shard_adaptively([bank, travel], TEXTS, sampling=ADAPTIVE, **SETTINGS)
    passes = outputs[0].passes
    assert passes.dtype == torch.int16
    assert passes.min() >= 2
    assert passes.max() <= MOST
    assert len(passes.unique()) > 1
    assert torch.equal(passes, outputs[1].passes)
    for teacher in outputs:
        torch.testing.assert_close(teacher.mc_probabilities.sum(-1), torch.ones(len(TEXTS)))


def test_an_unreachable_bound_takes_all_k_passes_and_gives_the_numbers_of_fixed_k(bank, travel):
    adaptive = Sampling(passes=3, adaptive_bound=1.0)
    joint = score_shard_adaptively([bank, travel], TEXTS, sampling=adaptive, **SETTINGS)
    for teacher, outputs in zip([bank, travel], joint, strict=True):
        fixed = score_shard(teacher, TEXTS, sampling=Sampling(passes=3), **SETTINGS)
        assert outputs.passes.tolist() == [3] * len(TEXTS)
        assert torch.equal(outputs.logits, fixed.logits)
        assert torch.equal(outputs.mc_probabilities, fixed.mc_probabilities)
        assert torch.equal(outputs.pass_entropy, fixed.pass_entropy)


def test_what_is_decided_early_is_mostly_what_many_passes_decide(bank, travel):
    space = LabelSpace.union([bank.labels, travel.labels])
    early = score_shard_adaptively([bank, travel], TEXTS, sampling=ADAPTIVE, **SETTINGS)
    many = [score_shard(t, TEXTS, sampling=Sampling(passes=64), **SETTINGS) for t in (bank, travel)]
    one, other = (teacher_scores(Evidence(space, outputs), "entropy").argmax(-1) for outputs in (early, many))
    decided = early[0].passes < MOST
    assert decided.any()
    assert (one == other)[decided].float().mean() >= 0.75


def test_the_same_request_gives_the_same_numbers_bit_for_bit(bank, travel):
    def scores() -> torch.Tensor:
        outputs = score_shard_adaptively([bank, travel], TEXTS, sampling=ADAPTIVE, **SETTINGS)
        return torch.cat([teacher.mc_probabilities for teacher in outputs], -1)

    assert torch.equal(scores(), scores())


def test_a_teacher_without_dropout_beside_one_with_it_is_not_sampled(bank, tmp_path):
    fixed = Teacher.load(make_teacher(tmp_path, ["x", "y"], dropout=False), precision="float32")
    sampled, unsampled = score_shard_adaptively([bank, fixed], TEXTS, sampling=ADAPTIVE, **SETTINGS)
    assert sampled.passes.min() >= 2
    assert unsampled.passes.max() == 0
    assert torch.equal(unsampled.mc_probabilities, unsampled.logits.softmax(-1))


def test_scoring_one_teacher_alone_cannot_be_adaptive(bank):
    with pytest.raises(ValueError, match="score_shard_adaptively"):
        score_shard(bank, TEXTS, sampling=ADAPTIVE, **SETTINGS)


@pytest.mark.parametrize("passes", [0, 1])
def test_fewer_than_two_passes_leave_nothing_to_stop(bank, travel, passes):
    sampling = Sampling(passes=passes, adaptive_bound=0.0)
    joint = score_shard_adaptively([bank, travel], TEXTS, sampling=sampling, features=True, **SETTINGS)
    fixed = score_shard(travel, TEXTS, sampling=Sampling(passes=passes), features=True, **SETTINGS)
    assert joint[1].passes.tolist() == [passes] * len(TEXTS)
    assert torch.equal(joint[1].mc_probabilities, fixed.mc_probabilities)
    assert torch.equal(joint[1].features, fixed.features)


def test_a_deterministic_pass_that_is_known_is_not_repeated(bank, travel):
    known = [unsampled_answer(teacher) for teacher in (bank, travel)]
    done = []
    again = score_shard_adaptively(
        [bank, travel], TEXTS, sampling=ADAPTIVE, known=known, on_batch=done.append, **SETTINGS
    )
    whole = score_shard_adaptively([bank, travel], TEXTS, sampling=ADAPTIVE, **SETTINGS)
    assert sum(done) == sum(int(teacher.passes.sum()) for teacher in again)
    assert torch.equal(again[0].mc_probabilities, whole[0].mc_probabilities)


def test_an_amalgamation_reports_how_many_passes_were_spent(bank, travel):
    training = Training(epochs=1, precision="float32")
    method = Muka(mc_samples=MOST, adaptive=True, adaptive_bound=0.05)
    student = amalgamate([bank, travel], TEXTS, method=method, training=training, progress=False)
    assert 2 <= student.report["teachers"][0]["passes_per_text"] < MOST


@pytest.mark.parametrize(("degrees", "tabulated"), [(2, 4.303), (6, 2.447), (14, 2.145), (30, 2.042)])
def test_the_quantiles_of_students_t_are_those_of_the_tables(degrees, tabulated):
    assert student_t(degrees) == pytest.approx(tabulated, rel=0.05 if degrees == 2 else 1e-3)


class Scripted:
    """Passes of three texts, over two classes: the first certain, the second not, the third between."""

    def __init__(self, probabilities: list[list[float]]) -> None:
        p = torch.tensor(probabilities)
        self.passes = torch.stack([p, 1 - p], -1)

    def dropout_passes(self, first: int, count: int, rows: np.ndarray) -> torch.Tensor:
        return self.passes[torch.from_numpy(rows), first : first + count]


def test_a_text_stops_at_a_margin_that_its_spread_and_the_passes_left_cannot_explain():
    sure = Scripted([[0.99] * 8, [0.9, 0.6] * 4, [0.69, 0.72] * 4])
    unsure = Scripted([[0.5] * 8, [0.6, 0.9] * 4, [0.64, 0.67] * 4])
    zero = Answer(torch.zeros(3, 2))
    samples = [Samples(sampler, zero, sampled=True) for sampler in (sure, unsure)]
    space = LabelSpace.union([["a", "b"], ["c", "d"]])
    sample_until_decided(samples, space, 3, Sampling(passes=8, adaptive_bound=0.02), torch.device("cpu"))
    assert samples[0].outputs().passes.tolist() == [2, 8, 4]
    torch.testing.assert_close(samples[0].outputs().mc_probabilities[1], torch.tensor([0.75, 0.25]))


@pytest.mark.parametrize("score", ["entropy", "max_probability"])
def test_passes_that_differ_in_the_kept_labels_alone_are_not_taken_for_alike(score):
    """Nine tenths of the mass lie on a dropped label; of the rest half or nine tenths on the first one."""
    space = LabelSpace.union([["a", "b", None], ["c", "d"]])
    wavering, steady = Scripted([[0.05]]), Scripted([[0.5] * 8])
    wavering.passes = torch.tensor([[[0.05, 0.05, 0.9], [0.09, 0.01, 0.9]] * 4])
    samples = [
        Samples(wavering, Answer(torch.zeros(1, 3)), sampled=True, kept=partial(space.project, 0)),
        Samples(steady, Answer(torch.zeros(1, 2)), sampled=True),
    ]
    sampling = Sampling(passes=8, adaptive_bound=0.02, score=score)
    sample_until_decided(samples, space, 1, sampling, torch.device("cpu"))
    assert samples[0].outputs().passes.tolist() == [8]
