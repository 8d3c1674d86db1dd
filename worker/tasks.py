"""Celery's tasks: thin, without torch. An id comes in, nothing goes out."""

from app.persistence.database import Database
from app.settings import get_settings
from app.task_queue import RUN_AMALGAMATION
from worker.celery_app import celery, is_stopping, worker_name
from worker.child import StopSwitch, run_attempt
from worker.lease import claim, give_back, record_loss


@celery.task(name=RUN_AMALGAMATION)  # type: ignore[untyped-decorator]
def run_amalgamation(job_id: str) -> None:
    """Claim the job and see one attempt through to its end; nothing when it is not to be had."""
    settings = get_settings()
    database = Database(settings.resolved_database_url())
    try:
        with StopSwitch(settings.stop_seconds) as stop:
            if stop.requested or is_stopping():
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
