"""Messages about new jobs: sent right after the commit, by a thread that no request waits for."""

import logging
import time
from dataclasses import replace

import pytest
import redis

from app.services.backend import Backend
from app.services.caretaker import dispatch
from app.task_queue import QUEUE, TaskQueue
from tests.jobs import add_job, job_of, noted_statements


def _messages(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen(QUEUE))  # type: ignore[arg-type]


def test_each_job_is_sent_once_and_noted(backend: Backend, redis_url: str) -> None:
    jobs = [add_job(backend.database) for _ in range(30)]
    for job_id in jobs:
        backend.sender.send(job_id)
    backend.sender.close()
    assert _messages(redis_url) == 30
    assert all(job_of(backend.database, job_id).dispatched_at for job_id in jobs)
    assert dispatch(backend) == 0


def test_what_comes_together_is_noted_together(backend: Backend) -> None:
    jobs = [add_job(backend.database) for _ in range(30)]
    sender = backend.sender
    with noted_statements(backend.database) as statements:
        with sender._lock:  # nothing is taken before all are there
            sender._waiting.extend(jobs[:-1])
        sender.send(jobs[-1])
        sender.close()
    assert sum(statement.startswith("UPDATE") for statement in statements) == 1


def test_a_broker_that_does_not_answer_leaves_jobs_to_the_dispatcher_and_is_asked_again(
    backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = add_job(backend.database)
    gone = TaskQueue("redis://127.0.0.1:1/0")
    without = replace(backend, queue=gone)
    began = time.monotonic()
    without.sender.send(job_id)
    assert time.monotonic() - began < 1, "no request waits for the broker"
    while without.sender._is_busy:
        time.sleep(0.01)
    without.sender.send(job_id)
    without.sender.close()
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert job_of(backend.database, job_id).dispatched_at is None
    assert dispatch(backend) == 1
    assert _messages(redis_url) == 1
    gone.close()


def test_a_job_that_comes_when_the_process_stops_is_left_to_the_dispatcher(
    backend: Backend, redis_url: str
) -> None:
    job_id = add_job(backend.database)
    backend.sender.close()
    backend.sender.send(job_id)
    assert _messages(redis_url) == 0
    assert dispatch(backend) == 1
