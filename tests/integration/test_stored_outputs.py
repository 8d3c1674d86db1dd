"""Teachers' stored outputs: the longest unused go first, nobody's go too early, and writers may race."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from app.domain.status import Status
from app.domain.stored_outputs import Computation
from app.persistence import amalgamations, stored_outputs
from app.persistence.tables import NeededOutput, StoredOutput
from app.services.backend import Backend
from app.services.leftovers import find_all
from app.services.stored_outputs import evict, statistics
from tests.jobs import add_job

ROOT = Path(__file__).parents[2]
HERE = Computation("float32", "cpu, torch 1")
SIZE = 100


def _limited(backend: Backend, size_bytes: int) -> Backend:
    return replace(backend, settings=backend.settings.model_copy(update={"scores_max_bytes": size_bytes}))


def _store(backend: Backend, name: str) -> str:
    key = f"scores/{name}.safetensors"
    with backend.store.staging() as folder, backend.database.write() as session:
        (folder / "file").write_bytes(b"x" * SIZE)
        stored_outputs.record(session, key, SIZE, HERE)
        backend.store.put_file(key, folder / "file")
    return key


def _use(backend: Backend, keys: Sequence[str], *, hours_ago: float = 0) -> str:
    """By a job of its own; answers its id."""
    job_id = add_job(backend.database)
    with backend.database.write() as session:
        stored_outputs.need(session, job_id, sorted(keys))
        if hours_ago:
            then = _now(session) - timedelta(hours=hours_ago)
            session.execute(update(StoredOutput).where(StoredOutput.key.in_(keys)).values(last_used_at=then))
    return job_id


def _now(session: object) -> datetime:
    from app.persistence.time import now  # noqa: PLC0415

    at = session.scalar(select(now()))  # type: ignore[attr-defined]
    assert isinstance(at, datetime)
    return at


def _end(backend: Backend, job_id: str) -> None:
    with backend.database.write() as session:
        source = (Status.QUEUED,)
        assert amalgamations.change_status(session, job_id, Status.CANCELLED, "ended", only_from=source)


def _left(backend: Backend) -> set[str]:
    """Every row has its file, and every file its row."""
    with backend.database.read() as session:
        rows = set(session.scalars(select(StoredOutput.key)))
    assert rows == set(backend.store.list("scores"))
    return rows


class TestEviction:
    def test_the_longest_unused_go_until_the_rest_fits(self, backend: Backend) -> None:
        keys = [_store(backend, name) for name in "abcd"]
        for key, hours_ago in zip(keys, (1, 4, 3, 2), strict=True):
            _end(backend, _use(backend, [key], hours_ago=hours_ago))
        assert evict(_limited(backend, 4 * SIZE)) == 0
        assert evict(_limited(backend, 2 * SIZE + 50)) == 2
        assert _left(backend) == {keys[0], keys[3]}
        assert evict(_limited(backend, 0)) == 2
        assert _left(backend) == set()

    def test_what_a_living_job_asked_for_stays_whatever_the_limit(self, backend: Backend) -> None:
        old = _store(backend, "old")
        _store(backend, "other")
        job_id = _use(backend, [old, "scores/not-yet-there.safetensors"], hours_ago=9)
        assert evict(_limited(backend, 0)) == 1
        assert _left(backend) == {old}
        _store(backend, "not-yet-there")
        assert evict(_limited(backend, 0)) == 0
        _end(backend, job_id)
        assert evict(_limited(backend, 0)) == 2
        assert _left(backend) == set()

    def test_who_asks_between_look_and_removal_keeps_it(self, backend: Backend) -> None:
        key = _store(backend, "piece")
        with backend.database.read() as session:
            (found,) = stored_outputs.least_recently_used(session, 10)
        _use(backend, [key])
        with backend.database.write() as session:
            assert not stored_outputs.remove(session, found)
        assert _left(backend) == {key}

    def test_more_than_are_looked_at_at_once_go(self, backend: Backend) -> None:
        with backend.database.write() as session:
            for number in range(150):
                stored_outputs.record(session, f"scores/{number}.safetensors", SIZE, HERE)
        assert evict(_limited(backend, 10 * SIZE)) == 140

    def test_needs_of_ended_jobs_are_forgotten(self, backend: Backend) -> None:
        key = _store(backend, "piece")
        ended, living = _use(backend, [key]), _use(backend, [key])
        _end(backend, ended)
        evict(backend)
        with backend.database.read() as session:
            assert list(session.scalars(select(NeededOutput.amalgamation_id))) == [living]


def test_the_service_tells_how_much_there_is(backend: Backend) -> None:
    _store(backend, "a")
    _store(backend, "b")
    with backend.database.write() as session:
        for name, more in (
            (stored_outputs.REUSED, 3),
            (stored_outputs.COMPUTED, 1),
            (stored_outputs.REUSED, 2),
        ):
            stored_outputs.count(session, name, more)
    told = statistics(_limited(backend, 999))
    assert (told.pieces, told.size_bytes, told.limit_bytes) == (2, 2 * SIZE, 999)
    assert (told.shards_reused, told.shards_computed) == (5, 1)


def test_a_file_without_a_row_is_swept_once_it_is_old(backend: Backend) -> None:
    add_job(backend.database)
    kept = _store(backend, "kept")
    with backend.store.staging() as folder:
        (folder / "file").write_bytes(b"of muka 0.1")
        backend.store.put_file("scores/orphan.safetensors", folder / "file")
    assert not any("orphan" in leftover.name for leftover in find_all(backend))
    old = replace(backend, settings=backend.settings.model_copy(update={"sweep_age_seconds": 0}))
    assert [each.name for each in find_all(old)] == ["scores/orphan.safetensors"]
    assert kept in _left_rows(backend)


def _left_rows(backend: Backend) -> set[str]:
    with backend.database.read() as session:
        return set(session.scalars(select(StoredOutput.key)))


WRITER = """
import random, sys, torch
from app.domain.status import Status
from app.domain.stored_outputs import Piece
from app.persistence import amalgamations
from app.persistence.database import Database
from app.storage import open_store
from pathlib import Path
from tests.jobs import add_job
from worker.lease import Lease
from worker.muka import TeacherOutputs
from worker.patience import Patience
from worker.stored_outputs import Shelf, computation

url, root, seed = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
database, store, chance = Database(url), open_store(root), random.Random(seed)
here = computation("float32", torch.device("cpu"))
hits = 0
for _ in range(12):
    job_id = add_job(database)
    lease = Lease(database, job_id, 1, lease_seconds=60, heartbeat_seconds=1)
    shelf = Shelf(Patience(store, lease, 0), here)
    numbers = chance.sample(range(5), 3)
    keys = {number: f"scores/{number}.safetensors" for number in numbers}
    there = shelf.need(list(keys.values()))
    for number, key in keys.items():
        value = torch.full((50, 2), float(number))
        if key not in there:
            shelf.keep({Piece.LOGITS: key}, TeacherOutputs(value, value, value[:, 0].short(), value[:, 0]))
        found = shelf.find(key)
        assert found is not None, f"{key} was asked for and is gone"
        assert torch.equal(found["logits"], value)
        hits += key in there
    with database.write() as session:
        amalgamations.change_status(session, job_id, Status.CANCELLED, "ended", only_from=(Status.QUEUED,))
print(hits)
"""


def test_processes_that_write_read_and_remove_at_once_lose_nothing_they_asked_for(backend: Backend) -> None:
    arguments = [backend.database.url, str(backend.settings.resolved_store_dir())]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *arguments, str(seed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(3)
    ]
    removed = 0
    while any(writer.poll() is None for writer in writers):
        removed += evict(_limited(backend, 1500))
    ends = [writer.communicate() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0, 0], "\n".join(stderr for _, stderr in ends)
    assert removed > 0
    _left(backend)


@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_the_latest_computation_is_the_one_that_was_used_last(
    backend: Backend, precision: str | None
) -> None:
    with backend.database.write() as session:
        assert stored_outputs.latest_computation(session, precision) is None
        for name, computed in (("a", "bfloat16"), ("b", "float32")):
            stored_outputs.record(session, name, SIZE, Computation(computed, "cpu"))
        before = _now(session) - timedelta(hours=1)
        session.execute(update(StoredOutput).where(StoredOutput.key == "a").values(last_used_at=before))
        found = stored_outputs.latest_computation(session, precision)
    assert found == Computation(precision or "float32", "cpu")
