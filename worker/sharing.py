"""The scoring of a job, shared with workers that have nothing else to do.

The worker that holds the job keeps it: the others assist. Each shard of scoring that is missing becomes a
row, which whoever is free takes by compare-and-set, computes and stores; the holder works on them too, takes
over what a helper lost, and goes on to the training when none is left. So a job has the same states and the
same one lease as without help, a worker that is alone does what it always did, and no message carries
anything but a hint. (The design has the last shard queue the training as a task of its own: it would take a
state between two leases, in which a job belongs to nobody, and a lone worker would load everything twice.)
"""

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from app.domain.shards import ShardStatus, Unit
from app.domain.stored_outputs import Computation
from app.persistence import amalgamations, shards, workers
from app.persistence.shards import Claim
from app.settings import Settings
from worker.lease import Lease

if TYPE_CHECKING:
    from app.task_queue import TaskQueue

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""How often the holder looks what its helpers have done, while it waits for them."""


class Sharing:
    """Of one job's scoring, by the attempt that holds the job."""

    def __init__(
        self, settings: Settings, lease: Lease, computation: Computation, go_on: Callable[[], None]
    ) -> None:
        """
        Args:
            settings: from how much on it is worth it.
            lease: of the job.
            computation: what everybody must compute with: other numbers would be stored under other names.
            go_on: raises when the job is to stop; otherwise a sign that something moves.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._settings = settings
        self._lease = lease
        self._computation = computation
        self._go_on = go_on
        self._looked_at = float("-inf")

    def share(self, units: Sequence[Unit], on_helped: Callable[[Unit], None]) -> Iterator[Unit]:
        """What of these units this worker computes, one after the other; at the end all are done.

        Nothing is written while nobody is idle.

        Args:
            units: all that are missing.
            on_helped: told what others have done.
        """
        left, started = deque(units), time.monotonic()
        while left:
            done = len(units) - len(left)
            each_seconds = (time.monotonic() - started) / done if done else 0.0
            if self._is_worth_it(len(left), each_seconds):
                yield from self._shared(list(left), on_helped)
                return
            yield left.popleft()

    def _is_worth_it(self, missing: int, each_seconds: float) -> bool:
        least = self._settings.share_shards
        if least is None or missing < least or missing * each_seconds < self._settings.share_seconds:
            return False
        return self._is_time() and self._idle() > 0

    def _shared(self, units: Sequence[Unit], on_helped: Callable[[Unit], None]) -> Iterator[Unit]:
        from app.task_queue import TaskQueue  # noqa: PLC0415  (celery: most runs are never shared)

        lease, known = self._lease, set[Unit]()
        opening = partial(shards.open_all, job_id=lease.job_id, attempt=lease.attempt, units=units)
        lease.write(partial(opening, computation=self._computation))
        queue, name = TaskQueue(self._settings.broker_url), self._name()
        try:
            self._call(queue)
            while True:
                claim = self._take(name)
                if claim is not None:
                    known.add(claim.unit)
                    yield claim.unit
                    lease.write(partial(shards.finish, claim=claim))
                elif self._done_count() == len(units):
                    break
                else:
                    self._go_on()
                    time.sleep(_LOOK_SECONDS)
                if self._is_time():
                    known |= self._tell(known, on_helped)
                    self._call(queue)
        finally:
            queue.close()
        self._tell(known, on_helped)
        self._close(name)

    def _take(self, name: str) -> Claim | None:
        take = partial(shards.take_back, job_id=self._lease.job_id, attempt=self._lease.attempt, worker=name)
        return self._lease.write(lambda session: (take(session),))[0]

    def _done_count(self) -> int:
        """Not how many are left: none of those of an attempt that has lost its job."""
        lease = self._lease
        found = lease.read(lambda session: shards.statuses(session, lease.job_id, lease.attempt))
        return found[ShardStatus.DONE]

    def _tell(self, known: set[Unit], on_helped: Callable[[Unit], None]) -> set[Unit]:
        """What helpers have done since it was told last."""
        new = self._done().keys() - known
        for unit in sorted(new):
            on_helped(unit)
        return new

    def _close(self, own_name: str) -> None:
        """Tell who did how much, where others did something, and that it is over."""
        done = list(self._done().values())
        by = {name: done.count(name) for name in sorted(set(done))}
        if by.keys() - {own_name}:
            shares = ", ".join(f"{name} {count}" for name, count in by.items())
            message = f"{len(done)} shards were computed by {shares}"
            self._lease.tell("scores", message, {"workers": by})
        self._lease.write(partial(shards.close, job_id=self._lease.job_id, attempt=self._lease.attempt))

    def _done(self) -> dict[Unit, str]:
        return self._lease.read(
            lambda session: shards.done_by(session, self._lease.job_id, self._lease.attempt)
        )

    def _call(self, queue: "TaskQueue") -> None:
        """One message for each worker that is idle; no broker, no help."""
        from kombu.exceptions import OperationalError  # noqa: PLC0415

        if self._lease.read(lambda session: shards.help_wanted(session, self._lease.job_id)) is None:
            return
        try:
            queue.call_for_help(self._lease.job_id, self._idle())
        except OperationalError as error:
            log.warning("nobody can be called to help: %s", type(error).__name__)

    def _is_time(self) -> bool:
        if time.monotonic() - self._looked_at < self._settings.heartbeat_seconds:
            return False
        self._looked_at = time.monotonic()
        return True

    def _idle(self) -> int:
        alive_seconds = self._settings.lease_seconds
        return self._lease.read(lambda session: workers.count(session, alive_seconds)["idle"])

    def _name(self) -> str:
        job = self._lease.read(lambda session: amalgamations.find(session, self._lease.job_id))
        return job.lease_owner or "" if job is not None else ""
