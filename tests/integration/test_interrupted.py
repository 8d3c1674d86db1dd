"""A job that is interrupted five times in a stage, wherever it happens to be, makes the very same thing.

That is its student; or, where the method trains none, the table of its texts.

Interrupted are writes to the database: everything that a job does is told there, so that they cut its way
into many small pieces. Some attempts are gone before the write is done, some after it, without a word, as a
process is that is killed; some are told to stop. (`tests/chaos` kills real processes, once in a stage.)
"""

import hashlib
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
import torch

from app.domain.status import Stage, Status
from app.persistence.losses import settle_loss
from tests.bench import Bench
from tests.jobs import events_of, job_of
from worker.lease import Lease, StopReason

SEED = 20261123
PLACES = 5
"""In each stage."""
FARTHEST = 7
"""Write of an attempt in a stage at which it is interrupted: fewer than are left after `PLACES` times."""


class Killed(BaseException):
    """The process is gone: nothing more of the attempt happens, not even its last words."""


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


class Interruptions:
    """Lets an attempt live until a write of a stage, and counts the writes of each."""

    def __init__(self, lease: Lease, stage: Stage | None = None, at: int = 0, how: str = "") -> None:
        self.writes = dict.fromkeys(Stage, 0)
        self.happened = False
        self._write: Callable[..., Any] = lease.write
        self._lease, self._stage, self._at, self._how = lease, stage, at, how
        self._now = Stage.PREPARING
        lease.write = self._writing  # type: ignore[method-assign]
        tell = lease.tell

        def telling(kind: str, message: str, data: dict[str, Any] | None = None, **rest: Any) -> None:
            if kind == "stage":
                assert data is not None
                self._now = Stage(data["stage"])
            tell(kind, message, data, **rest)

        lease.tell = telling  # type: ignore[method-assign]

    def _writing(self, change: Callable[..., Any]) -> Any:
        self.writes[self._now] += 1
        if self.happened or self._now != self._stage or self.writes[self._now] != self._at:
            return self._write(change)
        self.happened = True
        if self._how == "before":
            raise Killed
        answer = self._write(change)
        if self._how == "after":
            raise Killed
        self._lease.stop(StopReason.WARM_STOP)
        return answer


@pytest.mark.parametrize("method", ["muka", "ensemble"])
def test_what_it_makes_is_the_same_byte_for_byte(bench: Bench, method: str) -> None:
    job = partial(bench.job, whole_method={"name": method, "mc_samples": 2})
    undisturbed = job()
    counted = Interruptions(whole := bench.lease(undisturbed))
    assert bench.run(undisturbed, whole) == 0
    expected = _made(bench, undisturbed)
    rng = Random(SEED)
    for stage in [stage for stage in Stage if counted.writes[stage]]:
        job_id = job()
        if stage == Stage.SCORING:
            bench.store.delete("scores")  # or there would be nothing to ask the teachers
        for _ in range(PLACES):
            if job_of(bench.database, job_id).status == Status.QUEUED:  # not when its end was told already
                place = rng.randint(1, min(counted.writes[stage], FARTHEST))
                _interrupt(bench, job_id, stage, place, rng.choice(("before", "after", "stop")))
        _finish(bench, job_id)
        assert _made(bench, job_id) == expected, stage


def _made(bench: Bench, job_id: str) -> str:
    table = job_of(bench.database, job_id).text_table
    if table is None:
        return bench.weights(job_id)
    assert list(bench.store.list(f"jobs/{job_id}")) == [table]
    return hashlib.sha256(bench.store.local_path(table).read_bytes()).hexdigest()


def _interrupt(bench: Bench, job_id: str, stage: Stage, place: int, how: str) -> None:
    lease = bench.lease(job_id)
    interruption = Interruptions(lease, stage, place, how)
    try:
        bench.run(job_id, lease)
    except Killed:
        with bench.database.write() as session:
            settle_loss(session, job_id, lease.attempt, "killed", max_attempts=1000)
    assert interruption.happened, (stage, place, how)


def _finish(bench: Bench, job_id: str) -> None:
    if job_of(bench.database, job_id).status == Status.QUEUED:
        assert bench.run(job_id) == 0
    assert job_of(bench.database, job_id).status == Status.SUCCEEDED
    told = events_of(bench.database, job_id)
    assert [event.sequence for event in told] == list(range(1, len(told) + 1))
    assert list(bench.store.unfinished()) == []
