"""What stored outputs depend on, and on nothing else."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from app.storage import ArtifactStore
from worker.muka import Sampling, TeacherOutputs
from worker.stored_outputs import Conditions, Piece, find, keep

TEXTS = ["one", "two"]
SAMPLING = Sampling(passes=4, seed=1)
CONDITIONS = Conditions(SAMPLING, max_length=16, precision="float32", device=torch.device("cpu"))
ADAPTIVE = replace(
    CONDITIONS, sampling=replace(SAMPLING, adaptive_bound=0.1), company=(("digest", ("a", "b")),)
)


def key(conditions: Conditions, piece: Piece = Piece.SAMPLES, shard: int = 0) -> str:
    return conditions.key(piece, "digest", TEXTS, shard)


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": replace(SAMPLING, passes=5)},
        {"sampling": replace(SAMPLING, seed=2)},
        {"max_length": 17},
        {"precision": "bfloat16"},
    ],
)
def test_other_conditions_are_other_samples(change: dict[str, Any]) -> None:
    assert key(replace(CONDITIONS, **change)) != key(CONDITIONS)


def test_teacher_texts_place_and_piece_are_in_the_key() -> None:
    keys = {
        key(CONDITIONS),
        key(CONDITIONS, shard=1),
        key(CONDITIONS, Piece.LOGITS),
        key(CONDITIONS, Piece.FEATURES),
        CONDITIONS.key(Piece.SAMPLES, "other", TEXTS, 0),
        CONDITIONS.key(Piece.SAMPLES, "digest", ["onetwo", ""], 0),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("piece", [Piece.LOGITS, Piece.FEATURES])
def test_the_deterministic_pass_does_not_depend_on_sampling_or_place(piece: Piece) -> None:
    other = replace(ADAPTIVE, sampling=Sampling(passes=9, seed=9))
    assert key(CONDITIONS, piece) == key(other, piece, shard=3)


def test_the_other_teachers_bound_and_score_matter_to_adaptive_sampling_only() -> None:
    other = (("digest", ("a", "b")), ("another", ("c", None)))
    assert key(replace(CONDITIONS, company=other)) == key(CONDITIONS)
    changed = [
        replace(ADAPTIVE, company=other),
        replace(ADAPTIVE, sampling=replace(ADAPTIVE.sampling, adaptive_bound=0.2)),
        replace(ADAPTIVE, sampling=replace(ADAPTIVE.sampling, score="bald")),
        CONDITIONS,
    ]
    assert len({key(conditions) for conditions in [ADAPTIVE, *changed]}) == 5


def test_auto_is_what_it_means_on_this_machine() -> None:
    auto = key(replace(CONDITIONS, precision="auto"))
    assert auto in {key(CONDITIONS), key(replace(CONDITIONS, precision="bfloat16"))}


def test_a_piece_is_found_as_it_was_kept_and_never_replaced(store: ArtifactStore) -> None:
    first, second = (
        TeacherOutputs(torch.full((2, 2), value), torch.ones(2, 2), torch.ones(2).short(), torch.zeros(2))
        for value in (1.0, 2.0)
    )
    name = key(CONDITIONS, Piece.LOGITS)
    assert find(store, name) is None
    keep(store, name, Piece.LOGITS, first)
    keep(store, name, Piece.LOGITS, second)
    found = find(store, name)
    assert found is not None
    assert list(found) == ["logits"]
    assert torch.equal(found["logits"], first.logits)
