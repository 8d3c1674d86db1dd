"""What the numbers depend on is in their address, and nothing else is."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from worker.muka import SHARD_SIZE
from worker.scores import Scoring, shards_of

TEXTS = ["one", "two"]
SCORING = Scoring(
    "digest", mc_samples=4, seed=1, max_length=16, precision="float32", device=torch.device("cpu")
)


@pytest.mark.parametrize(
    "change",
    [{"digest": "other"}, {"mc_samples": 5}, {"seed": 2}, {"max_length": 17}, {"precision": "bfloat16"}],
)
def test_other_settings_are_other_numbers(change: dict[str, Any]) -> None:
    assert replace(SCORING, **change).key(TEXTS, 0) != SCORING.key(TEXTS, 0)


def test_other_texts_or_another_place_in_the_corpus_are_other_numbers() -> None:
    keys = {SCORING.key(TEXTS, 0), SCORING.key(TEXTS, 1), SCORING.key(["onetwo", ""], 0)}
    assert len(keys) == 3


def test_without_dropout_passes_seed_and_place_do_not_matter() -> None:
    plain = replace(SCORING, mc_samples=0)
    assert plain.key(TEXTS, 0) == replace(plain, seed=9).key(TEXTS, 3)


def test_auto_is_what_it_means_on_this_machine() -> None:
    auto = replace(SCORING, precision="auto").key(TEXTS, 0)
    assert auto in {replace(SCORING, precision=p).key(TEXTS, 0) for p in ("float32", "bfloat16")}


def test_shards_depend_on_the_corpus_alone() -> None:
    texts = [str(n) for n in range(2 * SHARD_SIZE + 1)]
    shards = shards_of(texts)
    assert [len(shard) for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 1]
    assert [text for shard in shards for text in shard] == texts
