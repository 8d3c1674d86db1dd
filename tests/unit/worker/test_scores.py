"""What a teacher's numbers depend on is in their address, and nothing else is."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from worker.muka import SHARD_SIZE, Sampling
from worker.scores import shards_of
from worker.stored_outputs import Conditions, Piece

TEXTS = ["one", "two"]
SAMPLING = Sampling(passes=4, seed=1)
CONDITIONS = Conditions(SAMPLING, max_length=16, precision="float32", device=torch.device("cpu"))


def _key(conditions: Conditions, *, teacher: str = "digest", texts: list[str] = TEXTS, shard: int = 0) -> str:
    return conditions.key(Piece.SAMPLES, teacher, texts, shard)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": replace(SAMPLING, passes=5)},
        {"sampling": replace(SAMPLING, seed=2)},
        {"sampling": replace(SAMPLING, adaptive_bound=0.1)},
        {"max_length": 17},
        {"precision": "bfloat16"},
    ],
)
def test_other_conditions_are_other_samples(change: dict[str, Any]) -> None:
    assert _key(replace(CONDITIONS, **change)) != _key(CONDITIONS)


@pytest.mark.parametrize("change", [{"teacher": "other"}, {"texts": ["onetwo", ""]}, {"shard": 1}])
def test_another_teacher_text_or_place_is_another_sample(change: dict[str, Any]) -> None:
    assert _key(CONDITIONS, **change) != _key(CONDITIONS)


def test_the_other_teachers_matter_to_adaptive_sampling_only() -> None:
    company = (("digest", ("a", "b")), ("another", ("c", "d")))
    assert _key(replace(CONDITIONS, company=company)) == _key(CONDITIONS)
    adaptive = replace(CONDITIONS, sampling=replace(SAMPLING, adaptive_bound=0.1))
    assert _key(replace(adaptive, company=company)) != _key(adaptive)


def test_the_plain_pass_depends_on_no_dropout() -> None:
    other = replace(CONDITIONS, sampling=Sampling(passes=0, seed=9))
    for piece in (Piece.LOGITS, Piece.FEATURES):
        assert CONDITIONS.key(piece, "digest", TEXTS, 0) == other.key(piece, "digest", TEXTS, 3)


def test_auto_is_what_it_means_on_this_machine() -> None:
    auto = _key(replace(CONDITIONS, precision="auto"))
    assert auto in {_key(replace(CONDITIONS, precision=p)) for p in ("float32", "bfloat16")}


def test_shards_depend_on_the_corpus_alone() -> None:
    texts = [str(n) for n in range(2 * SHARD_SIZE + 1)]
    shards = shards_of(texts)
    assert [len(shard) for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 1]
    assert [text for shard in shards for text in shard] == texts
