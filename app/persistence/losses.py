"""What becomes of a job whose worker died: the one rule for the caretaker and for the worker's parent."""

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.domain.failure import WORKER_LOST_HINT, failure
from app.domain.status import FailureCode, Status
from app.persistence import stored_outputs
from app.persistence.amalgamations import change_status
from app.persistence.tables import Amalgamation

NO_LEASE = {"lease_owner": None, "lease_until": None, "dispatched_at": None}
"""Columns of a job that goes back to the queue: nobody holds it, and it is to be sent again."""
LOST_ATTEMPTS = "lost_attempts"
"""A counter for the metrics."""


def settle_loss(
    session: Session,
    job_id: str,
    attempt: int,
    why: str,
    *,
    max_attempts: int,
    where: ColumnElement[bool] | None = None,
) -> Status | None:
    """Queue the job again, or end it when it lost its worker too often or was being cancelled.

    Args:
        session: of `Database.write()`.
        job_id: the job.
        attempt: the attempt that was lost; a newer one is left alone.
        why: how the worker was lost, in a few words, for the event log.
        max_attempts: that many losses are a failure.
        where: a further condition on the row, checked in the same statement.

    Returns:
        The new status; None when the attempt has ended otherwise in the meantime.
    """
    # The row lock makes looking and changing one step on Postgres; on SQLite the transaction is alone.
    query = select(Amalgamation).where(Amalgamation.id == job_id).with_for_update()
    job = session.scalar(query)
    if job is None or job.attempt != attempt:
        return None
    to, message, values = _consequence(job, why, max_attempts)
    sources = (Status.CANCELLING,) if to == Status.CANCELLED else (Status.RUNNING,)
    changed = change_status(
        session,
        job_id,
        to,
        message,
        only_from=sources,
        attempt=attempt,
        where=where,
        values=values,
        data={"losses": job.losses + 1},
    )
    if changed is None:
        return None
    stored_outputs.count(session, LOST_ATTEMPTS, 1)
    return to


def _consequence(job: Amalgamation, why: str, max_attempts: int) -> tuple[Status, str, dict[str, object]]:
    losses = job.losses + 1
    if job.status == Status.CANCELLING:
        return Status.CANCELLED, f"cancelled; attempt {job.attempt} was lost meanwhile: {why}", {}
    if losses < max_attempts:
        message = f"attempt {job.attempt} was lost: {why}; the job is queued again"
        return Status.QUEUED, message, {**NO_LEASE, "losses": losses, "stage": None}
    message = f"lost {losses} times, the last time because {why}"
    told = failure(FailureCode.WORKER_LOST, message, stage=job.stage, hint=WORKER_LOST_HINT)
    return Status.FAILED, message, {"losses": losses, "failure": told}
