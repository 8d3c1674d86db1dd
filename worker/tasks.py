"""Celery's tasks: thin, without torch. An id comes in, nothing goes out."""

import logging
import time
from dataclasses import dataclass
from functools import partial

from app.persistence import shards, waiting
from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.settings import Settings, get_settings
from app.storage import StoreError, configured_store
from app.task_queue import HELP_SCORING, RUN_AMALGAMATION
from worker.celery_app import celery, is_stopping, worker_name
from worker.child import StopSwitch, run_attempt, run_helper
from worker.lease import claim, give_back, record_loss
from worker.system_errors import is_full

log = logging.getLogger(__name__)


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
    database = Database(settings.resolved_database_url())
    try:
        with StopSwitch(settings.stop_seconds) as stop:
            if stop.requested or is_stopping() or _is_store_away(settings, database, job_id):
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
    finally:
        database.close()


def _is_store_away(settings: Settings, database: Database, job_id: str) -> bool:
    """True when the job had better wait, until the dispatcher sends it again: one attempt would only fail.

    A full disk is no reason: it does not empty itself, and the job's failure tells what to do.
    """
    store = configured_store(settings, partial(names_no_file, database))
    try:
        store.check()
    except StoreError as error:
        if is_full(error):
            return False
        why = f"a worker left the job in the queue: {error}"
        with database.write() as session:
            if waiting.warn_once(session, job_id, why):
                log.warning("%s: %s", job_id, why)
        return True
    return False


@celery.task(name=HELP_SCORING)  # type: ignore[untyped-decorator]
def help_scoring(job_id: str) -> None:
    """Compute shards of a job that another worker holds, until none is open or a job waits."""
    settings = get_settings()
    database = Database(settings.resolved_database_url())
    try:
        with StopSwitch(settings.stop_seconds) as stop:
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
    finally:
        database.close()


def _is_too_early(job_id: str, attempt: int) -> bool:
    failures = _failures.get((job_id, attempt))
    return failures is not None and time.monotonic() < failures.until
