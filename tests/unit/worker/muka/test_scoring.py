import json

import numpy as np
import pytest
import torch

from tests.tiny_models import ARCHITECTURES, TEXTS, make_teacher
from worker.muka.errors import CorpusEmptyError, OutOfMemoryError_, StoppedError
from worker.muka.forward import forward
from worker.muka.recipe import Sampling
from worker.muka.scoring import ShardSampler, TeacherOutputs, score_shard
from worker.muka.teacher import Teacher
from worker.muka.uncertainty import dropout_modules

SETTINGS = {"sampling": Sampling(passes=3), "shard": 0, "max_length": 32}


def _same(one: TeacherOutputs, other: TeacherOutputs) -> bool:
    return all(
        torch.equal(vars(one)[name], vars(other)[name]) for name in vars(one) if vars(one)[name] is not None
    )


def test_outputs_have_a_row_a_text_in_the_corpus_order(bank):
    outputs = score_shard(bank, TEXTS, **SETTINGS)
    assert outputs.logits.shape == outputs.mc_probabilities.shape == (len(TEXTS), 3)
    assert outputs.logits.dtype == outputs.mc_probabilities.dtype == torch.float32
    assert outputs.passes.tolist() == [3] * len(TEXTS)
    assert outputs.passes.dtype == torch.int16
    torch.testing.assert_close(outputs.mc_probabilities.sum(-1), torch.ones(len(TEXTS)))
    encoded = bank.tokenizer(TEXTS[6], return_tensors="pt")
    alone = bank.model(encoded["input_ids"], encoded["attention_mask"]).logits[0]
    torch.testing.assert_close(outputs.logits[6], alone, atol=1e-5, rtol=1e-5)


def test_the_same_request_gives_the_same_numbers_bit_for_bit(bank, bank_folder):
    again = Teacher.load(bank_folder, name="another name", precision="float32")
    assert _same(score_shard(bank, TEXTS, **SETTINGS), score_shard(again, TEXTS, **SETTINGS))


@pytest.mark.parametrize("change", [{"sampling": Sampling(passes=3, seed=2)}, {"shard": 1}])
def test_other_seeds_and_shards_draw_other_dropout_masks(bank, change):
    one, other = score_shard(bank, TEXTS, **SETTINGS), score_shard(bank, TEXTS, **{**SETTINGS, **change})
    assert torch.equal(one.logits, other.logits)
    assert not torch.equal(one.mc_probabilities, other.mc_probabilities)


def test_the_random_state_of_the_caller_is_left_alone(bank):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    score_shard(bank, TEXTS, **SETTINGS)
    assert torch.equal(torch.rand(1), expected)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def any_teacher(request, tmp_path_factory) -> Teacher:
    folder = make_teacher(tmp_path_factory.mktemp(request.param), ["a", "b", "c"], request.param)
    return Teacher.load(folder, precision="float32")


@pytest.mark.parametrize("budget", [1, 20, 10_000])
def test_a_score_does_not_depend_on_batch_mates_or_padding(any_teacher, budget):
    settings = {**SETTINGS, "sampling": Sampling(), "features": True}
    whole = score_shard(any_teacher, TEXTS, **settings, token_budget=budget)
    for i, text in enumerate(TEXTS):
        alone = score_shard(any_teacher, [text], **settings)
        torch.testing.assert_close(whole.logits[i], alone.logits[0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(whole.features[i], alone.features[0], atol=1e-5, rtol=1e-5)


def test_the_passes_of_a_text_share_no_mask(any_teacher):
    """Not of a single dropout layer: DeBERTa's of relative positions has one mask for a whole batch."""
    sampler = ShardSampler(any_teacher, TEXTS[:1], seed=1, shard=0, max_length=32)
    assert any_teacher.has_dropout  # how it samples is settled, with all layers
    layers = dropout_modules(any_teacher.model)
    rates = [layer.p for layer in layers]
    try:
        for alone in layers:
            for layer in layers:
                layer.p = 0.5 if layer is alone else 0.0
            stacked = sampler.dropout_passes(0, 4, np.zeros(1, dtype=int))[0]
            one_by_one = [sampler.dropout_passes(k, 1, np.zeros(1, dtype=int))[0, 0] for k in range(4)]
            assert _distinct(stacked) == _distinct(one_by_one), "4, or 1 where the layer is never called"
    finally:
        for layer, rate in zip(layers, rates, strict=True):
            layer.p = rate


def _distinct(passes) -> int:
    """Up to the rounding of a row's place in a batch."""
    return len({tuple(round(number, 5) for number in p.tolist()) for p in passes})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_debertas_positions_are_dropped_for_a_whole_batch(architecture, tmp_path):
    teacher = Teacher.load(make_teacher(tmp_path, ["a", "b"], architecture), precision="float32")
    assert teacher.drops_for_all_texts == (architecture == "deberta-v2")
    assert not any(module._forward_pre_hooks for module in teacher.model.modules())


def test_without_samples_the_deterministic_pass_is_the_score(bank):
    outputs = score_shard(bank, TEXTS, **{**SETTINGS, "sampling": Sampling()})
    assert torch.equal(outputs.mc_probabilities, outputs.logits.softmax(-1))
    assert outputs.passes.tolist() == [0] * len(TEXTS)


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_dropout_that_no_pass_comes_to_samples_nothing(architecture, tmp_path):
    """BERT's attention is one operator, which drops only in training; MPNet's has a layer for it."""
    folder = make_teacher(tmp_path, ["a", "b"], architecture, dropout=False)
    config = json.loads((folder / "config.json").read_text()) | {"attention_probs_dropout_prob": 0.5}
    (folder / "config.json").write_text(json.dumps(config))
    teacher = Teacher.load(folder, precision="float32")
    assert dropout_modules(teacher.model)
    assert teacher.has_dropout == (architecture == "mpnet")
    outputs = score_shard(teacher, TEXTS, **SETTINGS)
    moved = not torch.equal(outputs.mc_probabilities, outputs.logits.softmax(-1))
    assert moved == teacher.has_dropout


def test_a_teacher_without_dropout_falls_back_to_the_deterministic_pass(tmp_path):
    teacher = Teacher.load(make_teacher(tmp_path, ["a", "b"], dropout=False), precision="float32")
    assert not teacher.has_dropout
    outputs = score_shard(teacher, TEXTS, **SETTINGS)
    assert torch.equal(outputs.mc_probabilities, outputs.logits.softmax(-1))
    assert outputs.passes.max() == 0


def test_more_samples_come_nearer_to_the_expectation(bank):
    def p_hat(samples: int, seed: int) -> torch.Tensor:
        sampling = Sampling(passes=samples, seed=seed)
        return score_shard(bank, TEXTS, **{**SETTINGS, "sampling": sampling}).mc_probabilities

    expectation = p_hat(200, 5)
    assert (p_hat(64, 6) - expectation).norm() < (p_hat(1, 6) - expectation).norm() / 2


def test_bfloat16_scores_are_close_to_float32(bank, bank_folder):
    half = Teacher.load(bank_folder, precision="bfloat16")
    exact = score_shard(bank, TEXTS, **SETTINGS).logits
    torch.testing.assert_close(score_shard(half, TEXTS, **SETTINGS).logits, exact, atol=0.1, rtol=0.1)
    mixed = score_shard(bank, TEXTS, **SETTINGS, precision="bfloat16").logits
    torch.testing.assert_close(mixed, exact, atol=0.1, rtol=0.1)


def test_pooled_features_come_along_when_wanted(bank):
    features = score_shard(bank, TEXTS, **SETTINGS, features=True).features
    assert features.shape == (len(TEXTS), 32)
    alone = score_shard(bank, TEXTS[4:5], **SETTINGS, features=True).features[0]
    torch.testing.assert_close(features[4], alone, atol=1e-5, rtol=1e-5)


def test_features_are_the_mean_of_the_last_hidden_states(any_teacher):
    batch = any_teacher.tokenizer(list(TEXTS[:3]), padding=True, return_tensors="pt")
    batch = {name: batch[name] for name in ("input_ids", "attention_mask")}
    before = len(any_teacher.model.base_model._forward_hooks)
    with torch.inference_mode():
        found = forward(any_teacher.model, batch, features=True).features
        assert len(any_teacher.model.base_model._forward_hooks) == before
        states = any_teacher.model(**batch, output_hidden_states=True).hidden_states[-1]
    mask = batch["attention_mask"].unsqueeze(-1)
    torch.testing.assert_close(found, (states * mask).sum(1) / mask.sum(1))


def test_progress_counts_text_passes_the_deterministic_one_included(bank):
    done = []
    score_shard(bank, TEXTS, **SETTINGS, on_batch=done.append, token_budget=30)
    assert sum(done) == 4 * len(TEXTS)
    assert len(done) > 4


def test_it_stops_between_batches_when_asked(bank):
    done = []
    with pytest.raises(StoppedError):
        score_shard(bank, TEXTS, **SETTINGS, on_batch=done.append, should_stop=lambda: len(done) >= 2)
    assert len(done) == 2


def test_an_empty_shard_is_refused(bank):
    with pytest.raises(CorpusEmptyError):
        score_shard(bank, [], **SETTINGS)


def test_outputs_survive_a_file_and_concatenation(bank, tmp_path):
    outputs = score_shard(bank, TEXTS, **SETTINGS, features=True)
    outputs.save(tmp_path / "shard.safetensors")
    assert _same(TeacherOutputs.load(tmp_path / "shard.safetensors"), outputs)
    both = TeacherOutputs.cat([outputs, outputs])
    assert len(both) == 2 * len(TEXTS)
    assert torch.equal(both.mc_probabilities[len(TEXTS) :], outputs.mc_probabilities)


def test_out_of_memory_halves_the_batch_and_one_text_that_does_not_fit_is_an_error(bank_folder):
    teacher = Teacher.load(bank_folder, precision="float32")
    assert teacher.has_dropout  # seven short texts tell, while there is memory
    limit = 3

    def refuse(_module, _args, kwargs):
        if len(kwargs["input_ids"]) > limit:
            raise torch.OutOfMemoryError("out of memory")

    teacher.model.register_forward_pre_hook(refuse, with_kwargs=True)
    whole = score_shard(teacher, TEXTS, **{**SETTINGS, "sampling": Sampling(passes=1)})
    assert whole.logits.isfinite().all()
    limit = 0
    with pytest.raises(OutOfMemoryError_):
        score_shard(teacher, TEXTS, **SETTINGS)
