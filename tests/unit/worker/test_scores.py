"""What teachers are asked, and what the store answers for them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from sqlalchemy import delete

from app.domain.stored_outputs import Asked
from app.persistence import stored_outputs
from app.persistence.database import Database
from app.persistence.stored_outputs import COMPUTED, REUSED
from app.persistence.tables import NeededOutput
from app.storage import ArtifactStore
from tests.jobs import add_job
from tests.tiny_models import TEXTS, make_teacher
from worker.asking import Asking, WaitingTeacher
from worker.corpus import Texts
from worker.lease import Lease
from worker.muka import SHARD_SIZE, Sampling, Teacher
from worker.muka.ahead import TokenisedAhead
from worker.muka.columns import Columns
from worker.patience import Patience
from worker.scores import Scores, Scoring
from worker.stored_outputs import Shelf, computation

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

    shelf: Shelf
    folders: list[Path]
    scratch: Path
    loaded: list[int] = field(default_factory=list)
    texts_done: float = 0.0

    def score(
        self, sampling: Sampling, *, features: bool = False, keeps_features: bool = False
    ) -> list[Scores]:
        """`features` are wanted; `keeps_features`: and kept for others, wanted or not."""
        torch.set_num_threads(1)
        self.loaded, self.texts_done = [], 0.0
        scoring = self.scoring(sampling, features=features, keeps_features=keeps_features)
        return scoring.score(self.teachers(), Texts.spooled([pa.array(TEXTS)], self.scratch))

    def teachers(self) -> list[WaitingTeacher]:
        return [WaitingTeacher(str(i), lambda i=i: self._load(i)) for i in range(2)]  # type: ignore[misc]

    def scoring(self, sampling: Sampling, *, features: bool = False, keeps_features: bool = False) -> Scoring:
        asked = Asked(
            owner="acme",
            max_length=16,
            passes=sampling.passes,
            bound=sampling.adaptive_bound,
            features=features,
            company=tuple((str(i), labels) for i, labels in enumerate(LABELS)),
        )
        asking = Asking(
            self.shelf, asked, "float32", self._count, lambda: False, keeps_features=keeps_features
        )
        return Scoring(asking, self.scratch)

    def _load(self, index: int) -> Teacher:
        self.loaded.append(index)
        return Teacher.load(self.folders[index], precision="float32")

    def _count(self, texts: float) -> None:
        self.texts_done += texts


@pytest.fixture
def desk(store: ArtifactStore, folders: list[Path], sqlite_url: str, tmp_path: Path) -> Iterator[Desk]:
    database = Database(sqlite_url)
    lease = Lease(database, add_job(database), 1, lease_seconds=60, heartbeat_seconds=1)
    yield Desk(
        Shelf(Patience(store, lease, 0), computation("float32", torch.device("cpu"))), folders, tmp_path
    )
    database.close()


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


@pytest.mark.parametrize("sampling", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_features_that_a_job_does_not_want_are_on_the_shelf_for_the_next(
    desk: Desk, sampling: Sampling
) -> None:
    assert desk.score(sampling, keeps_features=True)[0].outputs.features is None
    found = desk.score(Sampling(), features=True)
    assert passes(found) == [0, 0]
    assert found[0].outputs.features is not None


def test_nobody_is_asked_for_features_that_are_not_wanted(desk: Desk) -> None:
    desk.score(FIXED)
    assert passes(desk.score(FIXED, keeps_features=True)) == [0, 0], "they were not kept, and are no reason"
    assert passes(desk.score(Sampling(passes=4), keeps_features=True)) == [4 * n, 0]
    assert passes(desk.score(Sampling(), features=True)) == [n, n]


def test_what_is_reserved_for_later_is_not_removed_meanwhile(desk: Desk) -> None:
    desk.score(FIXED)
    database = desk.shelf.lease._database
    with database.write() as session:
        session.execute(delete(NeededOutput))
        assert len(stored_outputs.least_recently_used(session, 10)) == 4
    desk.scoring(Sampling(passes=3)).reserve(desk.teachers(), Texts.spooled([pa.array(TEXTS)], desk.scratch))
    with database.read() as session:
        assert stored_outputs.least_recently_used(session, 10) == []
    assert desk.loaded == [0, 1], "no teacher was loaded for it"


@pytest.mark.parametrize("ruin", ["missing", "broken"])
def test_a_file_that_is_gone_or_broken_is_computed_again(desk: Desk, ruin: str) -> None:
    first = desk.score(FIXED)
    for key in list(desk.shelf.store.list("scores")):
        path = desk.shelf.store.local_path(key)
        path.unlink() if ruin == "missing" else path.write_bytes(b"nonsense")
    again = desk.score(FIXED)
    assert passes(again) == passes(first)
    assert same(first, again)
    assert passes(desk.score(FIXED)) == [0, 0]


def test_hits_and_misses_are_counted_for_the_metrics(desk: Desk) -> None:
    desk.score(FIXED)
    desk.score(FIXED)
    desk.score(Sampling(passes=4))
    with desk.shelf.lease._database.read() as session:
        counted = [stored_outputs.counted(session, name) for name in (REUSED, COMPUTED)]
    assert counted == [3, 3], "without dropout the second teacher has nothing to add for the fourth pass"


def test_nothing_is_left_on_the_scratch_disk(desk: Desk) -> None:
    before = set(desk.scratch.iterdir())
    scores = desk.score(FIXED)
    assert set(desk.scratch.iterdir()) <= {*before, desk.scratch / "store"}
    assert scores[0].outputs.logits.shape == (n, 2)


@pytest.mark.parametrize("sampling", [Sampling(passes=1), ADAPTIVE], ids=["fixed", "adaptive"])
def test_who_tokenises_ahead_is_told_what_the_same_teachers_are_asked_next(
    desk: Desk, sampling: Sampling, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = [pa.array(f"{i} {TEXTS[i % n]}" for i in range(SHARD_SIZE)), pa.array(TEXTS)]
    told: list[tuple[int, int | None]] = []
    take = TokenisedAhead.take

    def spy(ahead, teacher, shard, texts, upcoming=None):  # type: ignore[no-untyped-def]
        assert list(texts) == shards[shard].to_pylist()
        if upcoming is not None:
            assert upcoming.texts() == shards[upcoming.shard].to_pylist()
        told.append((shard, None if upcoming is None else upcoming.shard))
        return take(ahead, teacher, shard, texts, upcoming)

    monkeypatch.setattr(TokenisedAhead, "take", spy)
    desk.scoring(sampling).score(desk.teachers(), Texts.spooled(shards, desk.scratch))
    one_by_one, together = [(0, 1), (1, None)] * 2, [(0, 1), (0, 1), (1, None), (1, None)]
    assert told == (together if sampling == ADAPTIVE else one_by_one)


def test_what_was_written_is_given_back_to_the_kernel(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    let_go: list[slice | None] = []

    def spy(_columns: Columns, rows: slice | None = None) -> None:
        let_go.append(rows)

    monkeypatch.setattr(Columns, "let_go", spy)
    shards = [pa.array(f"{i} {TEXTS[i % n]}" for i in range(SHARD_SIZE)), pa.array(TEXTS)]
    desk.scoring(Sampling()).score(desk.teachers(), Texts.spooled(shards, desk.scratch))
    assert let_go == [slice(0, SHARD_SIZE), slice(SHARD_SIZE, SHARD_SIZE + n)] * 2
