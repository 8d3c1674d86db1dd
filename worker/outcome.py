"""How an attempt that did not succeed leaves its job: one fenced change each."""

from dataclasses import replace

from sqlalchemy.orm import Session

from app.domain.failure import failure
from app.domain.status import FailureCode, Status
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from worker.failures import Failure, failure_of
from worker.lease import Lease, LeaseLostError, StopReason, give_back

_TIMEOUT = Failure(
    FailureCode.TIMEOUT,
    "the job ran longer than its max_runtime_seconds",
    "Resume it (POST /amalgamations/{id}/resume): it goes on from its checkpoint, and the time starts anew.",
)


_STALLED = Failure(
    FailureCode.TIMEOUT,
    "the job made no progress for {seconds:g} s",
    "Resume it (POST /amalgamations/{id}/resume): it goes on from its checkpoint. The worker's log tells "
    "where it stood still; MUKA_STALL_SECONDS sets the limit.",
)


def failed(lease: Lease, error: BaseException) -> None:
    """`failed`, with the code that the table names. Raises `LeaseLostError`."""
    _fail(lease, failure_of(error))


def stopped(lease: Lease) -> None:
    """What the reason for stopping asks for. Raises `LeaseLostError`."""
    if lease.stop_reason == StopReason.CANCELLED:
        lease.end(Status.CANCELLED, "cancelled while running")
    elif lease.stop_reason == StopReason.TIMEOUT:
        _fail(lease, _TIMEOUT)
    elif lease.stop_reason == StopReason.WARM_STOP:
        lease.write(lambda session: give_back(session, lease.job_id, lease.attempt))
    else:
        raise LeaseLostError(f"attempt {lease.attempt} does not hold {lease.job_id} any more")


def stalled(lease: Lease, seconds: float) -> None:
    """The attempt stands still: what it was asked to do before, else a failure. Raises `LeaseLostError`."""
    if lease.stop_reason is not None:
        stopped(lease)
    else:
        _fail(lease, replace(_STALLED, message=_STALLED.message.format(seconds=seconds)))


def _fail(lease: Lease, told: Failure) -> None:
    def change(session: Session) -> Amalgamation | None:
        job = amalgamations.find(session, lease.job_id)
        stage = None if job is None else job.stage
        value = failure(told.code, told.message, stage=stage, hint=told.hint, retryable=told.retryable)
        return lease.change(session, Status.FAILED, f"failed: {told.message}", failure=value)

    lease.write(change)
