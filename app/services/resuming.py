"""The use case behind `POST /amalgamations/{id}/resume`: the only way out of an end."""

from sqlalchemy.orm import Session

from app.domain.errors import ConflictError
from app.domain.status import TERMINAL, Status
from app.persistence import amalgamations, checkpoints
from app.persistence.losses import NO_LEASE
from app.persistence.tables import Amalgamation
from app.services.admission import lock_inputs
from app.services.backend import Backend
from app.services.jobs import Job, find
from app.services.submission import refuse_a_full_queue

RESUMABLE = (Status.FAILED, Status.CANCELLED)


def resume(backend: Backend, owner: str, job_id: str) -> Job:
    """Queue a job that has failed or was cancelled; it goes on from its newest checkpoint.

    Attempts go on counting, for they fence off whoever still writes; lost workers and the time since the
    first claim start anew.

    Raises:
        NotFoundError: there is none.
        ConflictError: it is in another status, has kept a student, or what it needs is gone.
        TooManyRequestsError: the owner has as many queued jobs as one may have.
    """
    with backend.database.read() as session:
        queued = amalgamations.count_queued(session, {owner})
    refuse_a_full_queue(backend, queued.get(owner, 0))
    with backend.database.write() as session:
        row = find(session, owner, job_id, lock=True)
        _refuse_status(row)
        _refuse_kept_student(session, row)
        _refuse_missing_inputs(session, row)
        message, step = _where_from(backend, job_id)
        values = {"losses": 0, "failure": None, "stage": None, "started_at": None, "finished_at": None}
        fresh = {**NO_LEASE, **values, "keep_best": False, "student_id": None}
        changed = amalgamations.change_status(
            session, job_id, Status.QUEUED, message, only_from=RESUMABLE, values=fresh, data={"step": step}
        )
        job = Job.of(session, changed or row)
    backend.sender.send(job_id)
    return job


def _refuse_status(row: Amalgamation) -> None:
    if row.status == Status.SUCCEEDED:
        where = f"its student is {row.student_id}" if row.student_id else "its method makes no student"
        raise ConflictError(f"the job has succeeded, there is nothing to resume; {where}", code="job_ended")
    if row.status not in TERMINAL:
        raise ConflictError(f"the job is {row.status}, it has not ended; wait for it", code="job_live")


def _refuse_kept_student(session: Session, row: Amalgamation) -> None:
    if checkpoints.has_kept_student(session, row.id):
        raise ConflictError(
            f"the job was cancelled and kept its student, which never changes; DELETE /students/"
            f"{row.student_id} first (its checkpoint stays), or create the job again",
            code="student_kept",
        )


def _refuse_missing_inputs(session: Session, row: Amalgamation) -> None:
    """Held until the job is live again; from then on nobody can remove them."""
    faults = lock_inputs(session, [row], "does not exist any more")
    if faults:
        raise ConflictError(
            f"the job cannot be resumed: {faults[0].detail}; create it again with what there is now",
            faults=faults,
            code="inputs_missing",
        )


def _where_from(backend: Backend, job_id: str) -> tuple[str, int | None]:
    """By the files and not by rows: a checkpoint without its row can be gone on from as well."""
    states = (key for key in backend.store.list(f"jobs/{job_id}") if key.endswith("/state.json"))
    steps = [int(key.split("/")[-2]) for key in states]
    if not steps:
        return "resumed by the user; there is no checkpoint (any more), only stored teacher outputs", None
    return f"resumed by the user; the training goes on from step {max(steps)}", max(steps)
