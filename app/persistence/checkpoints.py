"""Queries over checkpoints: published states of a training, of jobs that run or have ended.

The newest is the best one that is known: without labels nothing tells that an earlier state is better, and
a training's learning rate falls to its end. Newest is what the latest attempt wrote last.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, literal, select, tuple_
from sqlalchemy.orm import Session

from app.domain.identifiers import student_of
from app.domain.revisions import checkpoint_id
from app.domain.status import TERMINAL
from app.persistence.tables import Amalgamation, Checkpoint, Student
from app.persistence.time import now

COPIED = ("storage_prefix", "size_bytes", "files", "digest", "architecture", "labels", "parameters")
"""Columns that a checkpoint and the student made of it share."""


def of_job(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """All, the newest first."""
    query = select(Checkpoint).where(Checkpoint.amalgamation_id == job_id)
    return session.scalars(query.order_by(Checkpoint.attempt.desc(), Checkpoint.step.desc())).all()


def page(
    session: Session, job_id: str, *, limit: int, after: int | None, descending: bool
) -> Sequence[Checkpoint]:
    """Up to `limit + 1` of a job behind step `after`, in the order in which they were saved. Keyset.

    Of a step that is not there (any more), only the number is known.
    """
    query = select(Checkpoint).where(Checkpoint.amalgamation_id == job_id)
    if after is not None:
        last = session.get(Checkpoint, (job_id, after))
        key, place = tuple_(Checkpoint.step), tuple_(literal(after))
        if last is not None:
            key = tuple_(Checkpoint.attempt, Checkpoint.step)
            place = tuple_(literal(last.attempt), literal(last.step))
        query = query.where(key < place if descending else key > place)
    columns = (Checkpoint.attempt, Checkpoint.step)
    order = [column.desc() if descending else column.asc() for column in columns]
    return session.scalars(query.order_by(*order).limit(limit + 1)).all()


def add(session: Session, job_id: str, row: dict[str, Any]) -> bool:
    """Publish one; False when this step is published already: what is published never changes."""
    if session.get(Checkpoint, (job_id, row["step"])) is not None:
        return False
    session.add(Checkpoint(amalgamation_id=job_id, **row))
    return True


def has_expired(session: Session, job_id: str, kept_seconds: float) -> bool:
    """True when the job has ended so long ago that its checkpoints may be removed."""
    query = select(Amalgamation.id).where(Amalgamation.id == job_id, _is_late(kept_seconds))
    return session.scalar(query) is not None


def hold(session: Session, job_id: str, step: int, *, owner: str, wait: bool = True) -> bool:
    """Keep one that a new job needs from being removed until the transaction ends; False: it is gone."""
    query = (
        select(Checkpoint.step)
        .join(Amalgamation)
        .where(Checkpoint.amalgamation_id == job_id, Checkpoint.step == step, Amalgamation.owner == owner)
        .with_for_update(read=True, of=Checkpoint, nowait=not wait)
    )
    return session.scalar(query) is not None


def is_used(session: Session, checkpoint: Checkpoint) -> bool:
    """True while a job that has not ended learns from it, or starts from it."""
    name = checkpoint_id(checkpoint.amalgamation_id, checkpoint.step)
    return uses_model(session, name, checkpoint.storage_prefix)


def uses_model(session: Session, object_id: str, storage_prefix: str) -> bool:
    """True while a job that has not ended needs this model, student or checkpoint: by id, or by its files."""
    live = select(Amalgamation.resolved).where(Amalgamation.status.not_in(TERMINAL))
    for resolved in session.scalars(live):
        for part in (*resolved["teachers"], resolved["student"]):
            if part.get("object_id") == object_id or part.get("storage_prefix") == storage_prefix:
                return True
    return False


def lock_all(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """Who removes some locks them before asking who needs them; who creates a job holds them likewise."""
    query = select(Checkpoint).where(Checkpoint.amalgamation_id == job_id).order_by(Checkpoint.step)
    return session.scalars(query.with_for_update()).all()


def prune(session: Session, job_id: str, keep: int) -> Sequence[Checkpoint]:
    """Remove the rows of all but the newest `keep`; what a live job needs stays. Answers what is left."""
    lock_all(session, job_id)
    left = list(of_job(session, job_id))
    for checkpoint in left[keep:]:
        if not is_used(session, checkpoint):
            session.delete(checkpoint)
            left.remove(checkpoint)
    session.flush()
    return left


def keep_newest(session: Session, job: Amalgamation) -> str:
    """Make the newest checkpoint of a cancelled job its student; answers what became of it, in words."""
    newest = next(iter(of_job(session, job.id)), None)
    if newest is None:
        return "no step of the training was saved, so there is no student to keep"
    student_id = student_of(job.id)
    files = {column: getattr(newest, column) for column in COPIED}
    session.add(Student(id=student_id, owner=job.owner, amalgamation_id=job.id, name=job.name, **files))
    job.student_id = student_id
    return f"kept as a student as it was at step {newest.step} of {newest.total_steps}"


def has_kept_student(session: Session, job_id: str) -> bool:
    """True while the student that a cancelled job has kept exists."""
    return session.get(Student, student_of(job_id)) is not None


def kept_files(session: Session, job_id: str, kept_seconds: float | None = None) -> set[str]:
    """Keys of all files in the job's folder that a student or a checkpoint has, or that are its answer.

    With `kept_seconds` without checkpoints whose time is over, unless a live job needs them.
    """
    late = kept_seconds is not None and has_expired(session, job_id, kept_seconds)
    rows: list[Checkpoint | Student] = [
        each for each in of_job(session, job_id) if not late or is_used(session, each)
    ]
    if student := session.get(Student, student_of(job_id)):
        rows.append(student)
    kept = {f"{row.storage_prefix}/{file['path']}" for row in rows for file in row.files}
    table = session.scalar(select(Amalgamation.text_table).where(Amalgamation.id == job_id))
    return kept if table is None else kept | {table}


def remove_expired(session: Session, job_id: str, kept_seconds: float) -> None:
    """Remove the rows whose time is over; what a live job needs stays."""
    if has_expired(session, job_id, kept_seconds):
        prune(session, job_id, keep=0)


def _is_late(kept_seconds: float) -> ColumnElement[bool]:
    return Amalgamation.status.in_(TERMINAL) & (Amalgamation.finished_at < now(-kept_seconds))
