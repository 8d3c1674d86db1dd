"""What teachers are asked, and what the store answers for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from app.storage import ArtifactStore
from tests.tiny_models import TEXTS, make_teacher
from worker.muka import SHARD_SIZE, Sampling, Teacher
from worker.scores import Asked, Scores, Scoring, shards_of
from worker.stored_outputs import Conditions

LABELS = (("travel", "money"), ("food", "other"))
FIXED = Sampling(passes=3)
ADAPTIVE = Sampling(passes=6, adaptive_bound=0.05)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("teachers")
    return [make_teacher(root / str(i), labels, seed=i, dropout=i == 0) for i, labels in enumerate(LABELS)]


@dataclass
class Desk:
    """Two teachers, the second without dropout, and how often each was loaded."""

    store: ArtifactStore
    folders: list[Path]
    loaded: list[int] = field(default_factory=list)
    texts_done: float = 0.0

    def score(self, sampling: Sampling, *, features: bool = False) -> list[Scores]:
        torch.set_num_threads(1)
        company = tuple((str(i), labels) for i, labels in enumerate(LABELS))
        conditions = Conditions(
            sampling, max_length=16, precision="float32", device=torch.device("cpu"), company=company
        )
        self.loaded, self.texts_done = [], 0.0
        scoring = Scoring(self.store, conditions, features, self._count, lambda: False)
        return scoring.score([Asked(str(i), lambda i=i: self._load(i)) for i in range(2)], TEXTS)  # type: ignore[misc]

    def _load(self, index: int) -> Teacher:
        self.loaded.append(index)
        return Teacher.load(self.folders[index], precision="float32")

    def _count(self, texts: float) -> None:
        self.texts_done += texts


@pytest.fixture
def desk(store: ArtifactStore, folders: list[Path]) -> Desk:
    return Desk(store, folders)


def passes(scores: Sequence[Scores]) -> list[int]:
    return [of_teacher.passes for of_teacher in scores]


def same(one: Sequence[Scores], other: Sequence[Scores]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(torch.equal(a.outputs.mc_probabilities, b.outputs.mc_probabilities) for a, b in pairs)


n = len(TEXTS)


@pytest.mark.parametrize("sampling", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_what_is_stored_is_not_asked_again_and_no_teacher_is_loaded(desk: Desk, sampling: Sampling) -> None:
    first = desk.score(sampling)
    assert desk.loaded == [0, 1]
    assert first[1].passes == n, "without dropout there is one pass"
    again = desk.score(sampling)
    assert desk.loaded == []
    assert desk.texts_done == 2 * n
    assert passes(again) == [0, 0]
    assert [scores.reused for scores in again] == [1, 1]
    assert same(first, again)


def test_with_a_fixed_number_of_passes_all_progress_is_told(desk: Desk) -> None:
    desk.score(FIXED)
    assert desk.texts_done == pytest.approx(2 * n)
    desk.score(Sampling(passes=4))
    assert desk.texts_done == pytest.approx(2 * n)


def test_adaptive_passes_are_counted_as_they_were_spent(desk: Desk) -> None:
    first = desk.score(ADAPTIVE)
    assert first[0].passes == n + int(first[0].outputs.passes.sum()) <= n * (1 + ADAPTIVE.passes)
    assert desk.texts_done <= 2 * n


def test_samples_are_drawn_without_repeating_the_deterministic_pass(desk: Desk) -> None:
    plain = desk.score(Sampling())
    assert passes(plain) == [n, n]
    assert passes(desk.score(FIXED)) == [3 * n, 0]
    adaptive = desk.score(ADAPTIVE)
    assert passes(adaptive) == [int(adaptive[0].outputs.passes.sum()), 0]


def test_the_deterministic_pass_comes_from_any_job_that_sampled(desk: Desk) -> None:
    sampled = desk.score(ADAPTIVE)
    plain = desk.score(Sampling())
    assert passes(plain) == [0, 0]
    assert torch.equal(plain[0].outputs.logits, sampled[0].outputs.logits)
    assert plain[0].outputs.passes.max() == 0


def test_features_that_are_wanted_later_take_one_pass_and_leave_the_samples(desk: Desk) -> None:
    first = desk.score(FIXED)
    assert first[0].outputs.features is None
    later = desk.score(FIXED, features=True)
    assert passes(later) == [n, n]
    assert later[0].outputs.features is not None
    assert same(first, later)
    assert passes(desk.score(FIXED, features=True)) == [0, 0]


def test_shards_depend_on_the_corpus_alone() -> None:
    texts = [str(n) for n in range(2 * SHARD_SIZE + 1)]
    shards = shards_of(texts)
    assert [len(shard) for shard in shards] == [SHARD_SIZE, SHARD_SIZE, 1]
    assert [text for shard in shards for text in shard] == texts
