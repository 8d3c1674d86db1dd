"""A worker that is told to stop when it has a message, and its pool process has not begun with it."""

import os
import signal
from pathlib import Path

import redis

from app.domain.status import Status
from app.persistence.database import Database
from app.task_queue import QUEUE, TaskQueue
from tests.e2e.service import descendants, muka
from tests.jobs import add_job, job_of
from tests.servers import wait_until


def test_a_job_that_was_just_received_is_left_in_the_queue(
    sqlite_url: str, redis_url: str, tmp_path: Path
) -> None:
    """The pool process is stopped meanwhile, so that it begins after the signal."""
    database, queue = Database(sqlite_url), TaskQueue(redis_url)
    environment = {"MUKA_DATABASE_URL": sqlite_url, "MUKA_BROKER_URL": redis_url}
    with muka(["worker"], tmp_path, environment) as worker, redis.Redis.from_url(redis_url) as broker:
        wait_until(lambda: "ready." in worker.output(), "the worker is ready")
        ((pool, _),) = descendants(worker.process.pid)
        os.kill(pool, signal.SIGSTOP)
        job_id = add_job(database)
        queue.enqueue(job_id)
        wait_until(lambda: not broker.exists(QUEUE), "the message is received")
        wait_until(lambda: "received" in worker.output(), "the worker has it")
        worker.process.terminate()
        wait_until(lambda: "Warm shutdown" in worker.output(), "the worker stops")
        os.kill(pool, signal.SIGCONT)
        assert worker.process.wait(60) == 0
        job = job_of(database, job_id)
        assert (job.status, job.attempt) == (Status.QUEUED, 0)
    queue.close()
    database.close()
