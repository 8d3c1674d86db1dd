"""What the names of stored outputs depend on, and on nothing else."""

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest
import torch

from app.domain.methods import SPECS
from app.domain.recipe import Recipe
from app.domain.stored_outputs import SHARD_TEXTS, Asked, Computation, Piece
from app.storage.corpus_texts import digest, of_equal_size
from worker.muka import SHARD_SIZE, Need, get_method
from worker.muka.methods import METHODS
from worker.muka.recipe import SCORES, UNSAMPLED_SCORES
from worker.stored_outputs import computation

HERE = Computation("float32", "cpu, torch 1")
ASKED = Asked(owner="acme", max_length=16, passes=4, seed=1)
ADAPTIVE = replace(ASKED, bound=0.1, company=(("digest", ("a", "b")),))
TEXTS = digest(pa.array(["one", "two"]))


def key(asked: Asked, piece: Piece = Piece.SAMPLES, shard: int = 0, by: Computation = HERE) -> str:
    return asked.key(piece, by, teacher="digest", texts=TEXTS, shard=shard)


@pytest.mark.parametrize("change", [{"passes": 5}, {"seed": 2}, {"max_length": 17}])
def test_who_asks_for_something_else_gets_other_samples(change: dict[str, Any]) -> None:
    assert key(replace(ASKED, **change)) != key(ASKED)


@pytest.mark.parametrize("piece", Piece)
@pytest.mark.parametrize("change", [{"precision": "bfloat16"}, {"software": "cuda, torch 1"}])
def test_other_hardware_and_versions_compute_other_numbers(piece: Piece, change: dict[str, Any]) -> None:
    assert key(ASKED, piece, by=replace(HERE, **change)) != key(ASKED, piece)


@pytest.mark.parametrize("piece", Piece)
def test_another_owners_outputs_are_not_found(piece: Piece) -> None:
    """Or a plan would tell who else has these texts and this teacher."""
    assert key(replace(ASKED, owner="beta"), piece) != key(ASKED, piece)


def test_teacher_texts_place_and_piece_are_in_the_name() -> None:
    keys = {
        key(ASKED),
        key(ASKED, shard=1),
        key(ASKED, Piece.LOGITS),
        key(ASKED, Piece.FEATURES),
        ASKED.key(Piece.SAMPLES, HERE, teacher="other", texts=TEXTS, shard=0),
        ASKED.key(Piece.SAMPLES, HERE, teacher="digest", texts="other", shard=0),
    }
    assert len(keys) == 6


@pytest.mark.parametrize("piece", [Piece.LOGITS, Piece.FEATURES])
def test_the_deterministic_pass_does_not_depend_on_sampling_or_place(piece: Piece) -> None:
    other = replace(ADAPTIVE, passes=9, seed=9)
    assert key(ASKED, piece) == key(other, piece, shard=3)


def test_the_other_teachers_bound_and_score_matter_to_adaptive_sampling_only() -> None:
    other = (("digest", ("a", "b")), ("another", ("c", None)))
    assert key(replace(ASKED, company=other)) == key(ASKED)
    changed = [
        replace(ADAPTIVE, company=other),
        replace(ADAPTIVE, bound=0.2),
        replace(ADAPTIVE, score="bald"),
        ASKED,
    ]
    assert len({key(asked) for asked in [ADAPTIVE, *changed]}) == 5


def test_texts_are_told_apart_by_where_each_of_them_ends() -> None:
    lists = [["one", "two"], ["onetwo", ""], ["", "onetwo"], ["one", "two", ""], ["two", "one"]]
    assert len({digest(pa.array(texts)) for texts in lists}) == len(lists)


def test_the_digest_does_not_depend_on_how_the_texts_lie_in_memory() -> None:
    part = pa.array(["before", "one", "two", "after"]).slice(1, 2)
    assert digest(part) == TEXTS


@pytest.mark.parametrize("groups", [[10], [3, 3, 4], [1] * 10, [9, 1], [4, 4, 2]])
def test_shards_depend_on_the_corpus_alone_and_not_on_its_row_groups(groups: list[int]) -> None:
    texts = iter(map(str, range(10)))
    batches = (pa.record_batch([pa.array([next(texts) for _ in range(n)])], ["text"]) for n in groups)
    found = [batch.column("text").to_pylist() for batch in of_equal_size(batches, 4)]
    assert found == [["0", "1", "2", "3"], ["4", "5", "6", "7"], ["8", "9"]]


def test_api_and_library_cut_shards_of_one_size() -> None:
    assert SHARD_TEXTS == SHARD_SIZE


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("name", SPECS)
def test_what_a_recipe_asks_for_is_what_the_method_samples(name: str, score: str) -> None:
    settings = {"adaptive": True, "adaptive_bound": 0.1, "mc_samples": 5, "mc_seed": 7, "score": score}
    taken = {each: value for each, value in settings.items() if each in SPECS[name].model_fields}
    method = get_method(name, **taken)
    recipe = Recipe.model_validate({"teachers": ["a", "b"], "corpus": "c", "method": {"name": name, **taken}})
    asked = Asked.by(recipe, "acme", ())
    sampling = method.sampling
    assert (asked.passes, asked.seed, asked.bound, asked.score) == (
        sampling.passes,
        sampling.seed,
        sampling.adaptive_bound,
        sampling.score,
    )
    assert asked.passes == recipe.method.passes
    assert asked.features == (Need.TEACHER_FEATURES in METHODS[name].needs)


def test_a_score_that_looks_at_no_dropout_pass_takes_none() -> None:
    assert get_method("muka", score="energy", mc_samples=5).sampling.passes == 0
    assert all(
        get_method("muka", score=each, mc_samples=5).sampling.passes == 5
        for each in set(SCORES) - UNSAMPLED_SCORES
    )


def test_auto_is_what_it_means_on_this_machine() -> None:
    cpu = torch.device("cpu")
    assert computation("auto", cpu) in {computation(each, cpu) for each in ("float32", "bfloat16")}
    assert computation("float32", cpu).precision == "float32"
