"""Use cases over checkpoints: look, download. They are written by workers only."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy.orm import Session

from app.domain.errors import GoneError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix, student_of
from app.domain.revisions import parse_checkpoint, revision_of, step_of
from app.persistence import amalgamations, checkpoints
from app.persistence.tables import Amalgamation, Checkpoint
from app.services import jobs, published
from app.services.backend import Backend
from app.services.downloads import Download

DAY_SECONDS = 86_400


@dataclass(frozen=True)
class Revision:
    """A checkpoint, and how long there is one."""

    row: Checkpoint
    expires_at: datetime | None
    """None while the job has not ended."""

    @property
    def name(self) -> str:
        """`stu-…-step-200`, for archives."""
        return f"{student_of(self.row.amalgamation_id)}-{revision_of(self.row.step)}"


def of_job(backend: Backend, owner: str, job_id: str) -> Sequence[Revision]:
    """All of a job, the newest first; none when they have expired.

    Raises:
        NotFoundError: there is no such job.
    """
    with backend.database.read() as session:
        job = jobs.find(session, owner, job_id)
        if checkpoints.has_expired(session, job_id, kept_seconds(backend)):
            return []
        expires_at = _expiry(backend, job)
        return [Revision(row, expires_at) for row in checkpoints.of_job(session, job_id)]


def page(
    backend: Backend, owner: str, job_id: str, *, limit: int, after: str | None, descending: bool
) -> Sequence[Revision]:
    """Up to `limit + 1` of a job in the order in which they were saved; none when they have expired.

    Raises:
        NotFoundError: there is no such job.
    """
    with backend.database.read() as session:
        job = jobs.find(session, owner, job_id)
        if checkpoints.has_expired(session, job_id, kept_seconds(backend)):
            return []
        last = parse_checkpoint(after) if after else None
        step = last[1] if last else None
        rows = checkpoints.page(session, job_id, limit=limit, after=step, descending=descending)
        expires_at = _expiry(backend, job)
        return [Revision(row, expires_at) for row in rows]


def get(backend: Backend, owner: str, job_id: str, revision: str) -> Revision:
    """One, by the name of its revision.

    Raises:
        NotFoundError: there is no such job, or it has no such checkpoint (any more).
        GoneError: it has expired.
    """
    with backend.database.read() as session:
        job, step = _job(session, owner, job_id), step_of(revision)
        row = session.get(Checkpoint, (job_id, step)) if job and step else None
        if job is None or row is None:
            raise NotFoundError(
                f"there is no checkpoint {revision[:100]!r}; GET /amalgamations/{job_id[:100]}/checkpoints "
                "lists those of a job"
            )
        if checkpoints.has_expired(session, job_id, kept_seconds(backend)):
            raise GoneError(
                "the checkpoint has expired; resume the job or create it again to have another one"
            )
        return Revision(row, _expiry(backend, job))


def file(backend: Backend, owner: str, job_id: str, revision: str, path: str) -> Download:
    """One file of a checkpoint's manifest.

    Raises:
        NotFoundError: there is no such checkpoint, or its manifest has no such path.
        GoneError: it has expired.
        StoreError: the file is not there.
    """
    found = get(backend, owner, job_id, revision)
    download = published.file(backend.store, found.row, path)
    if download is None:
        raise NotFoundError(f"the checkpoint has no file {path[:200]!r}; its /files lists them")
    return download


def archive(backend: Backend, owner: str, job_id: str, revision: str) -> Download:
    """All files of a checkpoint as one .tar.

    Raises:
        NotFoundError: there is no such checkpoint.
        GoneError: it has expired.
        StoreError: a file is not there.
    """
    found = get(backend, owner, job_id, revision)
    return published.archive(backend.store, found.row, found.name)


def kept_seconds(backend: Backend) -> float:
    """How long checkpoints are kept when their job has ended."""
    return backend.settings.checkpoint_retention_days * DAY_SECONDS


def _job(session: Session, owner: str, job_id: str) -> Amalgamation | None:
    if not has_prefix(job_id, Prefix.AMALGAMATION):
        return None
    return amalgamations.find(session, job_id, owner=owner)


def _expiry(backend: Backend, job: Amalgamation) -> datetime | None:
    return job.finished_at and job.finished_at + timedelta(seconds=kept_seconds(backend))
