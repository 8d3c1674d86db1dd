"""Teachers on a GPU answer as on the CPU, whatever the kernels, the batches and the memory."""

import numpy as np
import pytest
import torch

from tests.tiny_models import ARCHITECTURES, TEXTS, make_teacher
from worker.muka import Sampling, Teacher, score_shard, score_shard_adaptively
from worker.muka.batching import tokenise
from worker.muka.scoring import ShardSampler

LABELS = ["a", "b", "c"]
MANY = [" ".join((text, *TEXTS[: i % 5])) for i in range(50) for text in TEXTS]
"""Of many lengths."""


@pytest.fixture(scope="module", params=ARCHITECTURES)
def folder(request, tmp_path_factory):
    return make_teacher(tmp_path_factory.mktemp(request.param), LABELS, request.param)


@pytest.fixture
def teacher(folder, gpu) -> Teacher:
    return Teacher.load(folder, device=gpu)


def sampler(teacher: Teacher, texts=TEXTS, **settings) -> ShardSampler:
    return ShardSampler(teacher, texts, seed=1, shard=0, max_length=64, **settings)


def test_it_answers_as_on_the_cpu(folder, gpu):
    here = Teacher.load(folder, precision="float32")
    there = Teacher.load(folder, precision="float32", device=gpu)
    expected = sampler(here, MANY).deterministic(features=True)
    answer = sampler(there, MANY).deterministic(features=True)
    scale = expected.logits.abs().max()  # products in TF32
    torch.testing.assert_close(answer.logits, expected.logits, atol=0.01 * scale.item(), rtol=0.0)
    torch.testing.assert_close(answer.features, expected.features, atol=0.05, rtol=0.05)


def test_auto_computes_in_bfloat16(teacher, gpu):
    assert teacher.model.dtype == torch.bfloat16
    assert teacher.device == gpu


def test_the_same_request_gives_the_same_numbers(teacher):
    one, other = (
        score_shard(teacher, MANY, sampling=Sampling(passes=6, seed=3), shard=2, max_length=64, features=True)
        for _ in range(2)
    )
    for name, tensor in vars(one).items():
        assert torch.equal(tensor, getattr(other, name)), name


def test_passes_have_the_mean_and_spread_of_those_on_the_cpu(folder, gpu):
    passes = [
        sampler(Teacher.load(folder, precision="float32", device=device)).dropout_passes(
            0, 512, np.arange(len(TEXTS))
        )
        for device in (torch.device("cpu"), gpu)
    ]
    ours, theirs = passes[1].cpu(), passes[0]
    error = (ours.var(1) + theirs.var(1)).sqrt() / 512**0.5
    assert ((ours.mean(1) - theirs.mean(1)).abs() < 5 * error + 0.005).all()
    torch.testing.assert_close(ours.std(1), theirs.std(1), rtol=0.25, atol=0.01)


def test_passes_of_a_text_differ_and_do_not_follow_one_another(teacher):
    p = sampler(teacher).dropout_passes(0, 256, np.arange(len(TEXTS)))[..., 0].cpu()
    centred = p - p.mean(1, keepdim=True)
    assert len(p[0].unique()) > 20  # of the values that bfloat16 tells apart
    assert abs((centred[:, 1:] * centred[:, :-1]).mean() / centred.square().mean()) < 0.1
    assert abs((centred[1:] * centred[:-1]).mean() / centred.square().mean()) < 0.1


def test_batches_and_padding_change_nothing_but_rounding(folder, gpu):
    teacher = Teacher.load(folder, precision="float32", device=gpu)
    whole = sampler(teacher, MANY).deterministic().logits
    parts = sampler(teacher, MANY, token_budget=100).deterministic().logits
    torch.testing.assert_close(parts, whole, atol=0.01 * whole.abs().max().item(), rtol=0.0)


def test_adaptive_sampling_spends_no_more_than_k(folder, tmp_path, gpu):
    other = Teacher.load(make_teacher(tmp_path, ["x", "y"], "bert", seed=5), device=gpu)
    pair = [Teacher.load(folder, device=gpu), other]
    sampling = Sampling(passes=8, seed=1, adaptive_bound=0.02)
    outputs = score_shard_adaptively(pair, MANY, sampling=sampling, shard=0, max_length=64)
    assert torch.equal(outputs[0].passes, outputs[1].passes)
    assert set(outputs[0].passes.tolist()) <= {2, 4, 8}
    for each in outputs:
        torch.testing.assert_close(each.mc_probabilities.sum(-1), torch.ones(len(MANY)))


def test_too_little_memory_makes_batches_smaller_and_nothing_else(tmp_path, gpu):
    """Not a mock: torch is allowed a small part of the card, and the card's allocator refuses more."""
    folder = make_teacher(tmp_path, LABELS, "bert", width=256)
    teacher = Teacher.load(folder, device=gpu, precision="float32")
    texts = MANY * 20
    expected = sampler(teacher, texts).deterministic().logits
    torch.cuda.empty_cache()
    torch.cuda.reset_accumulated_memory_stats(gpu)
    allowed = torch.cuda.memory_reserved(gpu) + 60 * 2**20
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info(gpu)[1], gpu)
    sizes: list[int] = []
    try:
        answer = sampler(teacher, texts, on_batch=sizes.append).deterministic().logits
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
    assert torch.cuda.memory_stats(gpu)["num_ooms"] > 0
    assert sum(sizes) == len(texts)
    longest = int(tokenise(teacher.tokenizer, texts, 64).lengths.max())
    assert sizes[0] * longest < 131_072
    torch.testing.assert_close(answer, expected, atol=0.01 * expected.abs().max().item(), rtol=0.0)
