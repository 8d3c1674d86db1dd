"""Removes what nobody needs any more. Any number of sweepers may be at work, and any of them may die."""

import logging
from collections.abc import Callable, Iterator, Mapping

from sqlalchemy.orm import Session

from app.persistence import (
    amalgamations,
    checkpoints,
    corpora,
    deliveries,
    expired,
    idempotency,
    owned,
    workers,
)
from app.persistence.tables import Corpus
from app.services.backend import Backend
from app.services.checkpoints import kept_seconds
from app.services.leftovers import (
    DELIVERIES,
    KEYS,
    MARKS,
    WORKERS,
    Leftover,
    Reason,
    find_all,
    log_seconds,
    working_files,
)
from app.storage import StoreError

log = logging.getLogger(__name__)

_OLD_ROWS: Mapping[str, Callable[[Session, Backend], None]] = {
    KEYS: lambda session, _: idempotency.remove_expired(session),
    MARKS: lambda session, _: expired.remove_old(session),
    WORKERS: lambda session, _: workers.remove_forgotten(session),
    DELIVERIES: lambda session, backend: deliveries.remove_old(session, log_seconds(backend)),
}
"""What is removed all together, in one statement."""


def sweep(backend: Backend) -> Iterator[Leftover]:
    """Remove one thing after the other, and tell each; who stops asking stops the sweep.

    Raises:
        StoreError: At the end, when something could not be removed; it is there for the next sweep.
    """
    trouble: StoreError | None = None
    for leftover in find_all(backend):
        try:
            is_removed = _remove(backend, leftover)
        except StoreError as error:  # one file that cannot be removed keeps no other
            trouble = error
            continue
        if is_removed:
            log.info("swept %s: %s", leftover.name, leftover.reason)
            yield leftover
    if trouble is not None:
        raise trouble


def _remove(backend: Backend, leftover: Leftover) -> bool:
    """False when it is needed again, or another sweeper was quicker with its row."""
    remove_rows = _OLD_ROWS.get(leftover.name)
    if remove_rows is not None:
        with backend.database.write() as session:
            remove_rows(session, backend)
        return True
    if leftover.reason == Reason.EXPIRED:
        return _remove_corpus(backend, leftover.name)
    if leftover.reason == Reason.JOB_ENDED:
        return _remove_working_files(backend, leftover.name)
    if leftover.reason == Reason.UNFINISHED:
        backend.store.discard(leftover.name)
    else:
        backend.store.delete(leftover.name)
    return True


def _remove_working_files(backend: Backend, key: str) -> bool:
    """While the job's row is locked: who resumes the job comes before, or finds no checkpoint any more."""
    job_id = key.split("/")[1]
    with backend.database.write() as session:
        amalgamations.find(session, job_id, lock=True)
        checkpoints.lock_all(session, job_id)
        if key not in working_files(session, backend, job_id):
            return False
        checkpoints.remove_expired(session, job_id, kept_seconds(backend))
        backend.store.delete(key)
    return True


def _remove_corpus(backend: Backend, corpus_id: str) -> bool:
    """The row goes first: a crash in between leaves a file without a row, which a later sweep removes."""
    with backend.database.write() as session:
        # Locked before it is asked whether a job needs it; who creates a job holds it likewise.
        corpus = owned.find(session, Corpus, corpus_id, owner=None, lock=True)
        if corpus is None or not corpora.has_expired(session, corpus):
            return False
        expired.mark(session, corpus)
        session.delete(corpus)
        key = corpus.storage_key
    backend.store.delete(key)
    return True
