import pytest
import torch

from tests.tiny_models import TEXTS, make_teacher
from worker.muka import LabelSpace, Method, Training, amalgamate, score_shard, score_shard_adaptively
from worker.muka.methods import Evidence
from worker.muka.methods.muka import teacher_scores
from worker.muka.teacher import Teacher

SETTINGS = {"seed": 1, "shard": 0, "max_length": 32}
MOST = 12
ADAPTIVE = Method(mc_samples=MOST, adaptive=True, adaptive_bound=0.05)


def test_every_text_takes_between_two_passes_and_k_and_the_same_number_from_every_teacher(bank, travel):
    outputs = score_shard_adaptively([bank, travel], TEXTS, method=ADAPTIVE, **SETTINGS)
    passes = outputs[0].passes
    assert passes.dtype == torch.int16
    assert passes.min() >= 2
    assert passes.max() <= MOST
    assert len(passes.unique()) > 1
    assert torch.equal(passes, outputs[1].passes)
    for teacher in outputs:
        torch.testing.assert_close(teacher.mc_probabilities.sum(-1), torch.ones(len(TEXTS)))


def test_an_unreachable_bound_takes_all_k_passes_and_gives_the_numbers_of_fixed_k(bank, travel):
    adaptive = Method(mc_samples=3, adaptive=True, adaptive_bound=1.0)
    joint = score_shard_adaptively([bank, travel], TEXTS, method=adaptive, **SETTINGS)
    for teacher, outputs in zip([bank, travel], joint, strict=True):
        fixed = score_shard(teacher, TEXTS, method=Method(mc_samples=3), **SETTINGS)
        assert outputs.passes.tolist() == [3] * len(TEXTS)
        assert torch.equal(outputs.logits, fixed.logits)
        assert torch.equal(outputs.mc_probabilities, fixed.mc_probabilities)
        assert torch.equal(outputs.pass_entropy, fixed.pass_entropy)


def test_what_is_decided_early_is_mostly_what_many_passes_decide(bank, travel):
    space = LabelSpace.union([bank.labels, travel.labels])
    early = score_shard_adaptively([bank, travel], TEXTS, method=ADAPTIVE, **SETTINGS)
    many = [score_shard(t, TEXTS, method=Method(mc_samples=64), **SETTINGS) for t in (bank, travel)]
    one, other = (teacher_scores(Evidence(space, outputs), Method()).argmax(-1) for outputs in (early, many))
    decided = early[0].passes < MOST
    assert decided.any()
    assert (one == other)[decided].float().mean() >= 0.75


def test_the_same_request_gives_the_same_numbers_bit_for_bit(bank, travel):
    def scores() -> torch.Tensor:
        outputs = score_shard_adaptively([bank, travel], TEXTS, method=ADAPTIVE, **SETTINGS)
        return torch.cat([teacher.mc_probabilities for teacher in outputs], -1)

    assert torch.equal(scores(), scores())


def test_a_teacher_without_dropout_beside_one_with_it_is_not_sampled(bank, tmp_path):
    fixed = Teacher.load(make_teacher(tmp_path, ["x", "y"], dropout=False), precision="float32")
    sampled, unsampled = score_shard_adaptively([bank, fixed], TEXTS, method=ADAPTIVE, **SETTINGS)
    assert sampled.passes.min() >= 2
    assert unsampled.passes.max() == 0
    assert torch.equal(unsampled.mc_probabilities, unsampled.logits.softmax(-1))


def test_scoring_one_teacher_alone_cannot_be_adaptive(bank):
    with pytest.raises(ValueError, match="score_shard_adaptively"):
        score_shard(bank, TEXTS, method=ADAPTIVE, **SETTINGS)
    with pytest.raises(ValueError, match="mc_samples is 1"):
        Method(mc_samples=1, adaptive=True)


def test_an_amalgamation_reports_how_many_passes_were_spent(bank, travel):
    training = Training(epochs=1, precision="float32")
    student = amalgamate([bank, travel], TEXTS, method=ADAPTIVE, training=training, progress=False)
    assert 2 <= student.report["passes_per_text"][0] < MOST
