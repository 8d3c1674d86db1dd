"""Use cases over jobs that exist: look, list, cancel, delete. `app.services.live` waits for them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix
from app.domain.status import TERMINAL, Status
from app.persistence import amalgamations, checkpoints, events
from app.persistence.tables import Amalgamation, Event
from app.services.backend import Backend
from app.storage.keeping import all_but


@dataclass(frozen=True)
class Job:
    """A row, and what only the other rows tell."""

    row: Amalgamation
    queue_position: int | None

    @property
    def has_ended(self) -> bool:
        """True when nothing changes any more."""
        return self.row.status in TERMINAL

    @classmethod
    def of(cls, session: Session, row: Amalgamation) -> "Job":
        """With its place in the queue."""
        return cls.of_all(session, [row])[0]

    @classmethod
    def of_all(cls, session: Session, rows: Sequence[Amalgamation]) -> "list[Job]":
        """The same of several, with one query."""
        positions = amalgamations.queue_positions(session, rows)
        return [cls(row, positions.get(row.id)) for row in rows]


def get(backend: Backend, owner: str, job_id: str) -> Job:
    """One job.

    Raises:
        NotFoundError: there is none, or it is another owner's.
    """
    with backend.database.read() as session:
        return Job.of(session, find(session, owner, job_id))


def get_all(backend: Backend, job_ids: Collection[str]) -> dict[str, Job]:
    """Those that there are, by id, whoever owns them: the caller compares."""
    with backend.database.read() as session:
        found = Job.of_all(session, amalgamations.find_all(session, job_ids))
    return {job.row.id: job for job in found}


def look(backend: Backend, job_id: str, known: int | None, limit: int) -> tuple[Job, Sequence[Event]]:
    """The job, and up to `limit` events after number `known`; None: the newest. For any owner's listeners.

    The job is read first: when it has ended, fewer than `limit` events are all that there are.

    Raises:
        NotFoundError: there is none.
    """
    with backend.database.read() as session:
        row = amalgamations.find(session, job_id)
        if row is None:
            raise NotFoundError(f"there is no amalgamation {job_id!r}")
        if known is None:
            known = max(0, row.events - limit + 1)
        fresh = events.after(session, job_id, known, limit=limit) if row.events > known else ()
        return Job.of(session, row), fresh


def events_page(backend: Backend, job_id: str, sequence: int, limit: int = 1000) -> Sequence[Event]:
    """Up to `limit` events with a higher number, for a listener that is behind its feed."""
    with backend.database.read() as session:
        return events.after(session, job_id, sequence, limit=limit)


def page(
    backend: Backend,
    owner: str,
    *,
    limit: int,
    after: str | None,
    descending: bool,
    status: Status | None,
    metadata: dict[str, str],
) -> list[Job]:
    """Up to `limit + 1` jobs; the one more tells that there is a next page."""
    with backend.database.read() as session:
        rows = amalgamations.page(
            session,
            owner,
            limit=limit,
            after=after,
            descending=descending,
            status=status,
            metadata=metadata,
        )
        return Job.of_all(session, rows)


def cancel(backend: Backend, owner: str, job_id: str, *, keep_best: bool = False) -> Job:
    """End a job: at once when it is queued, otherwise its worker ends it. Repeating it changes nothing.

    `keep_best`: its newest checkpoint becomes its student; a worker saves one before it stops. Asked for
    once, it is kept to.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has succeeded or failed already; or it was cancelled, and there is no student.
    """
    with backend.database.write() as session:
        row = find(session, owner, job_id, lock=True)
        if row.status == Status.QUEUED:
            message, to = "cancelled by the user while queued", Status.CANCELLED
        else:
            message, to = "the user asked to cancel; the worker will stop", Status.CANCELLING
        _refuse_cancel(row, keep_best=keep_best)
        if keep_best and row.status not in TERMINAL:
            row.keep_best = True
            session.flush()
        changed = amalgamations.change_status(session, job_id, to, message, only_from=(Status(row.status),))
        return Job.of(session, changed or row)


def _refuse_cancel(row: Amalgamation, *, keep_best: bool) -> None:
    if row.status in (Status.SUCCEEDED, Status.FAILED):
        raise ConflictError(f"the job has {row.status} already, so it cannot be cancelled", code="job_ended")
    if row.status == Status.CANCELLED and keep_best and row.student_id is None:
        raise ConflictError(
            "the job was cancelled already, and nothing was kept as a student; its checkpoints can be "
            f"downloaded (GET /amalgamations/{row.id}/checkpoints), or resume it",
            code="job_ended",
        )


def delete(backend: Backend, owner: str, job_id: str) -> None:
    """Remove a job that has ended, its events and its working files; its student stays.

    Raises:
        NotFoundError: there is none.
        ConflictError: it has not ended, or a live job needs one of its checkpoints.
    """
    with backend.database.write() as session:
        row = find(session, owner, job_id, lock=True)
        if row.status not in TERMINAL:
            raise ConflictError(
                f"the job is {row.status}; cancel it (POST /amalgamations/{job_id}/cancel) and delete it "
                "when it has ended",
                code="job_live",
            )
        if any(checkpoints.is_used(session, each) for each in checkpoints.lock_all(session, job_id)):
            raise ConflictError(
                "a job that has not ended needs a checkpoint of this one; wait for that job, or cancel it",
                code="in_use",
            )
        amalgamations.remove(session, job_id)
        kept = checkpoints.kept_files(session, job_id)
    for key in list(all_but(backend.store, f"jobs/{job_id}", kept)):
        backend.store.delete(key)


def events_after(backend: Backend, owner: str, job_id: str, sequence: int, limit: int) -> Sequence[Event]:
    """Up to `limit + 1` events with a higher number, oldest first.

    Raises:
        NotFoundError: there is no such job.
    """
    with backend.database.read() as session:
        find(session, owner, job_id)
        return events.after(session, job_id, sequence, limit=limit + 1)


def report(backend: Backend, owner: str, job_id: str) -> dict[str, object]:
    """What a job that has succeeded found out.

    Raises:
        NotFoundError: there is no such job, or it has no report.
    """
    row = get(backend, owner, job_id).row
    if row.report is None:
        detail = f"the job is {row.status}; the report is there when it has succeeded"
        raise NotFoundError(detail, code="report_not_available")
    return row.report


def training_curve(backend: Backend, owner: str, job_id: str) -> list[dict[str, Any]]:
    """The points of a job's training so far, one a step.

    Raises:
        NotFoundError: there is no such job.
    """
    with backend.database.read() as session:
        find(session, owner, job_id)
        return events.metric_points(session, job_id)


def find(session: Session, owner: str, job_id: str, *, lock: bool = False) -> Amalgamation:
    """The row of the owner's job; locked, whoever deletes it, sweeps its files or resumes it waits.

    Raises:
        NotFoundError: there is none, or it is another owner's.
    """
    row = None
    if has_prefix(job_id, Prefix.AMALGAMATION):
        row = amalgamations.find(session, job_id, owner=owner, lock=lock)
    if row is None:
        raise NotFoundError(f"there is no amalgamation {job_id[:100]!r}")
    return row
