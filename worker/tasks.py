"""Celery's tasks: thin, without torch. An id comes in, nothing goes out."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.exc import InterfaceError, OperationalError

from app.domain.status import Status
from app.persistence import amalgamations, shards, waiting
from app.persistence.database import Database
from app.settings import Settings, get_settings
from app.task_queue import HELP_SCORING, RUN_AMALGAMATION
from worker.celery_app import celery, is_stopping, worker_name
from worker.child import StopSwitch, run_attempt, run_helper
from worker.lease import claim, give_back, record_loss
from worker.store_check import store_trouble

log = logging.getLogger(__name__)
_AFTER_TROUBLE_SECONDS = 5.0


@dataclass
class _Failures:
    """How often this process could not help an attempt at a job, and when it may be tried again."""

    count: int = 0
    until: float = 0.0

    def add(self, pause_seconds: float) -> None:
        """One more. The pause is twice as long each time: who cannot help at all does not try for ever."""
        self.until = time.monotonic() + pause_seconds * 2**self.count
        self.count += 1


_failures: dict[tuple[str, int], _Failures] = {}
"""By job and attempt; only those that this process has failed to help."""


@celery.task(name=RUN_AMALGAMATION)  # type: ignore[untyped-decorator]
def run_amalgamation(job_id: str) -> None:
    """Claim the job and see one attempt through to its end; nothing when it is not to be had."""
    settings = get_settings()
    with _database(settings, job_id) as database:
        with StopSwitch(settings.stop_seconds) as stop:
            if stop.requested or is_stopping() or _is_to_wait(settings, database, job_id, stop):
                return
            attempt = claim(database, job_id, worker=worker_name(), lease_seconds=settings.lease_seconds)
            if attempt is None:
                return
            lost = run_attempt(settings, job_id, attempt, stop)
        if lost is not None and lost.stopped:
            with database.write() as session:
                give_back(session, job_id, attempt)
        elif lost is not None:
            record_loss(database, job_id, attempt, lost.why, max_attempts=settings.max_attempts)


@contextmanager
def _database(settings: Settings, job_id: str) -> Iterator[Database]:
    """For one task. Where it does not answer, the task ends: the dispatcher sends again, or a lease runs out.

    Not by an exception: Celery's way to tell of one holds a hundred megabytes for ever.
    """
    database = Database(settings.resolved_database_url())
    try:
        yield database
    except (OperationalError, InterfaceError) as error:
        log.warning("%s: the database does not answer: %s", job_id, type(error).__name__)
    finally:
        database.close()


def _is_to_wait(settings: Settings, database: Database, job_id: str, stop: StopSwitch) -> bool:
    """True when this worker had better leave the job in the queue; the dispatcher sends it again."""
    with database.read() as session:
        found = amalgamations.status_of(session, job_id)
    if found is None or found[0] != Status.QUEUED:
        return False  # nothing is claimed anyway
    trouble = store_trouble(settings, database)
    if trouble is None:
        return False
    why = f"a worker left the job in the queue: {trouble}"
    with database.write() as session:
        if waiting.warn_once(session, job_id, why):
            log.warning("%s: %s", job_id, why)
    # Or it would be the first to take every message, and workers that have their store would go without.
    end = time.monotonic() + _AFTER_TROUBLE_SECONDS
    while time.monotonic() < end and not (stop.requested or is_stopping()):
        time.sleep(0.1)
    return True


@celery.task(name=HELP_SCORING)  # type: ignore[untyped-decorator]
def help_scoring(job_id: str) -> None:
    """Compute shards of a job that another worker holds, until none is open or a job waits."""
    settings = get_settings()
    with _database(settings, job_id) as database, StopSwitch(settings.stop_seconds) as stop:
        if stop.requested or is_stopping():
            return
        with database.read() as session:
            attempt = shards.help_wanted(session, job_id)
        if attempt is None or _is_too_early(job_id, attempt):
            return
        if not run_helper(settings, job_id, attempt, worker_name(), stop):
            _failures.setdefault((job_id, attempt), _Failures()).add(settings.dispatch_again_seconds)
            with database.write() as session:
                shards.lose(session, worker_name())


def _is_too_early(job_id: str, attempt: int) -> bool:
    failures = _failures.get((job_id, attempt))
    return failures is not None and time.monotonic() < failures.until
