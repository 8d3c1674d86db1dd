"""What nobody needs any more, found and not touched: files that crashes left, and what has had its time.

A file is looked at before the rows that could name it. Files come before their row, and a row never goes
before its files are of no use: so what has no row now will not get one, unless it is still being made, and
then it is young, or its attempt holds its job.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy.orm import Session

from app.domain import stored_outputs as stored
from app.domain.identifiers import Prefix, student_of
from app.persistence import (
    checkpoints,
    corpora,
    deliveries,
    expired,
    idempotency,
    leftovers,
    stored_outputs,
    workers,
)
from app.persistence.leftovers import JobState
from app.persistence.tables import Corpus, Model
from app.services.backend import Backend
from app.services.checkpoints import DAY_SECONDS, kept_seconds
from app.storage.keeping import all_but

KEYS = "idempotency keys"
DELIVERIES = "webhook deliveries"
MARKS = "marks of expired objects"
WORKERS = "rows of workers that fell silent"
"""How the old ones are named, all together."""


class Reason(StrEnum):
    """Why something is of no use."""

    UNFINISHED = "left unfinished"
    """A staging folder whose process died in it."""
    NO_ROW = "no row names it"
    """Stored by a process that died before its commit."""
    DEAD_ATTEMPT = "of an attempt that published nothing"
    JOB_ENDED = "working files of a job that has ended"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Leftover:
    """One thing to remove."""

    reason: Reason
    name: str
    """A key of the store, the id of an object, or one of `KEYS`, `DELIVERIES`, `MARKS`, `WORKERS`."""
    size_bytes: int = 0


def find_all(backend: Backend) -> Iterator[Leftover]:
    """Everything that may be removed now, one after the other.

    A database without a single object is rather the wrong one than that of this store: then the store's
    files are left alone.
    """
    yield from _unfinished(backend)
    with backend.database.read() as session:
        is_known = leftovers.knows_anything(session)
    if is_known:
        yield from _without_row(backend, "corpora", Corpus)
        yield from _without_row(backend, "models", Model)
        yield from _stored_outputs(backend)
        yield from _students(backend)
        yield from _working_files(backend)
    yield from _expired(backend)


def _unfinished(backend: Backend) -> Iterator[Leftover]:
    for key in backend.store.unfinished():
        measure = backend.store.measure(key)
        if measure.age_seconds >= backend.settings.sweep_age_seconds:
            yield Leftover(Reason.UNFINISHED, key, measure.size_bytes)


def _without_row(backend: Backend, folder: str, table: type[Corpus | Model]) -> Iterator[Leftover]:
    for key in backend.store.children(folder):
        measure = backend.store.measure(key)
        if measure.age_seconds < backend.settings.sweep_age_seconds:
            continue
        with backend.database.read() as session:
            named = leftovers.has_row(session, table, _name(key).removesuffix(".parquet"))
        if not named:
            yield Leftover(Reason.NO_ROW, key, measure.size_bytes)


def _stored_outputs(backend: Backend) -> Iterator[Leftover]:
    """A worker died between file and row, or they are of muka 0.1, which kept no rows."""
    old = (key for key in backend.store.children(stored.PREFIX) if _is_old(backend, key))
    for chunk in stored_outputs.chunks(old):
        with backend.database.read() as session:
            named = stored_outputs.present(session, chunk)
        yield from (_of(backend, Reason.NO_ROW, key) for key in chunk if key not in named)


def _is_old(backend: Backend, key: str) -> bool:
    return backend.store.measure(key).age_seconds >= backend.settings.sweep_age_seconds


def _students(backend: Backend) -> Iterator[Leftover]:
    for folder in backend.store.children("students"):
        attempts = list(backend.store.children(folder))
        job_id = f"{Prefix.AMALGAMATION}-{_name(folder).removeprefix(f'{Prefix.STUDENT}-')}"
        job = _state(backend, job_id)  # before the student: what is published in between must be seen
        with backend.database.read() as session:
            published = leftovers.published_prefix(session, student_of(job_id))
        if published is None and (job is None or not job.is_live):
            yield _of(backend, Reason.DEAD_ATTEMPT, folder)
            continue
        for attempt in attempts:
            if attempt != published and not _may_publish(job, attempt):
                yield _of(backend, Reason.DEAD_ATTEMPT, attempt)


def _may_publish(job: JobState | None, key: str) -> bool:
    return job is not None and job.is_live and _name(key) == f"attempt-{job.attempt}"


def _working_files(backend: Backend) -> Iterator[Leftover]:
    for folder in backend.store.children("jobs"):
        with backend.database.read() as session:
            found = working_files(session, backend, _name(folder))
        yield from (_of(backend, Reason.JOB_ENDED, key) for key in found)


def working_files(session: Session, backend: Backend, job_id: str) -> list[str]:
    """Keys of what a job has left: nothing while it may go on from its checkpoints.

    Afterwards everything but the models (a student kept by a cancel, and checkpoints until they expire) and
    the table of a job that makes no student.
    """
    job = leftovers.job_state(session, job_id, kept_seconds(backend))
    if job is not None and not job.is_over:
        return []
    kept = checkpoints.kept_files(session, job_id, kept_seconds(backend))
    return list(all_but(backend.store, f"jobs/{job_id}", kept))


def _expired(backend: Backend) -> Iterator[Leftover]:
    with backend.database.read() as session:
        late = [row for row in leftovers.expired_corpora(session) if corpora.has_expired(session, row)]
        keys = idempotency.count_expired(session)
        sent = deliveries.count_old(session, log_seconds(backend))
        marks = expired.count_old(session)
        silent = workers.count_forgotten(session)
    for row in late:
        yield Leftover(Reason.EXPIRED, row.id, row.size_bytes)
    if keys:
        yield Leftover(Reason.EXPIRED, KEYS)
    if sent:
        yield Leftover(Reason.EXPIRED, DELIVERIES)
    if marks:
        yield Leftover(Reason.EXPIRED, MARKS)
    if silent:
        yield Leftover(Reason.EXPIRED, WORKERS)


def log_seconds(backend: Backend) -> float:
    """How long the deliveries of webhooks are kept."""
    return backend.settings.webhook_log_retention_days * DAY_SECONDS


def _state(backend: Backend, job_id: str) -> JobState | None:
    with backend.database.read() as session:
        return leftovers.job_state(session, job_id, kept_seconds(backend))


def _of(backend: Backend, reason: Reason, key: str) -> Leftover:
    return Leftover(reason, key, backend.store.measure(key).size_bytes)


def _name(key: str) -> str:
    return key.rpartition("/")[2]
