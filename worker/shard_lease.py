"""A helper's lease: it holds shards of a job, one at a time, while another worker holds the job."""

from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from app.domain.shards import Unit
from app.domain.status import Status
from app.domain.stored_outputs import Computation
from app.persistence import amalgamations, shards
from app.persistence.database import Database
from app.persistence.shards import Claim
from worker.lease import Lease

T = TypeVar("T")


class ShardLease(Lease):
    """Stops its helper as the lease of a job stops an attempt: also when the job's attempt has ended.

    Everything that the helper writes carries the claim of the shard, which is renewed with it.
    """

    def __init__(
        self,
        database: Database,
        job_id: str,
        attempt: int,
        *,
        worker: str,
        lease_seconds: float,
        heartbeat_seconds: float,
    ) -> None:
        super().__init__(
            database, job_id, attempt, lease_seconds=lease_seconds, heartbeat_seconds=heartbeat_seconds
        )
        self._worker = worker
        self._claim: Claim | None = None

    def computation(self) -> Computation | None:
        """What the holder of the job computes with; None: nothing is shared any more."""
        return self.read(lambda session: shards.computation_of(session, self.job_id, self.attempt))

    def take(self, by: Computation) -> Unit | None:
        """The next shard; None: none is left for this worker, or a job waits. Raises `LeaseLostError`."""

        def change(session: Session) -> tuple[Claim | None]:
            whose, seconds = self._worker, self._lease_seconds
            return (shards.take(session, self.job_id, self.attempt, by, worker=whose, lease_seconds=seconds),)

        (self._claim,) = self.write(change)
        return None if self._claim is None else self._claim.unit

    def finish(self) -> None:
        """The shard's outputs are stored. Raises `LeaseLostError`."""
        self._end(shards.finish)

    def let_go(self) -> None:
        """The helper stops: another one may take the shard that it has. Raises `LeaseLostError`."""
        self._end(shards.let_go)

    def write(self, change: Callable[[Session], T | None]) -> T:
        """As the base's, while the shard at hand is this helper's. Raises `LeaseLostError`."""
        claim = self._claim

        def fenced(session: Session) -> T | None:
            if claim is not None and not shards.renew(session, claim, self._lease_seconds):
                return None
            return change(session)

        return super().write(fenced)

    def _end(self, how: Callable[[Session, Claim], bool]) -> None:
        # Out of hand before the row says so: the heartbeat must not take what has ended for lost.
        claim, self._claim = self._claim, None
        if claim is not None:
            self.write(lambda session: how(session, claim))

    def _set(self, session: Session, columns: dict[str, Any]) -> Status | None:  # noqa: ARG002  (the base's)
        claim = self._claim
        if (
            claim is not None
            and not shards.renew(session, claim, self._lease_seconds)
            and claim is self._claim
        ):
            return None
        found = amalgamations.status_of(session, self.job_id)
        return (
            found[0]
            if found is not None and found[1] == self.attempt and found[0] in amalgamations.LEASED
            else None
        )
