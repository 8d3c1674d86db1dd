"""Leases that run out and messages that were never sent, on both engines and a real broker."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis

from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.database import Database
from app.services.backend import Backend
from app.services.caretaker import Caretaker, caretaking, dispatch, reap
from app.task_queue import QUEUE, TaskQueue
from tests.jobs import add_job, job_of, messages_of
from tests.servers import wait_until


def _claim(backend: Backend, job_id: str, *, lease_seconds: float = 60, worker: str = "w") -> int:
    with backend.database.write() as session:
        job = amalgamations.claim(session, job_id, worker=worker, lease_seconds=lease_seconds)
    assert job is not None
    return job.attempt


def _cancel(backend: Backend, job_id: str) -> None:
    with backend.database.write() as session:
        assert amalgamations.change_status(
            session, job_id, Status.CANCELLING, "cancel asked for", only_from=(Status.RUNNING,)
        )


def _sent(redis_url: str) -> list[str]:
    with redis.Redis.from_url(redis_url) as client:
        bodies = [json.loads(message) for message in client.lrange(QUEUE, 0, -1)]  # type: ignore[union-attr]
    return sorted(body["headers"]["argsrepr"].strip("(),'") for body in bodies)


class TestReap:
    def test_a_job_whose_worker_is_silent_is_queued_again_and_told_why(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        _claim(backend, job_id, lease_seconds=-1)
        assert reap(backend) == 1
        job = job_of(backend.database, job_id)
        assert (job.status, job.losses, job.attempt) == (Status.QUEUED, 1, 1)
        assert (job.lease_owner, job.lease_until, job.dispatched_at) == (None, None, None)
        assert (
            messages_of(backend.database, job_id)[-1]
            == "attempt 1 was lost: its worker fell silent; the job is queued again"
        )

    def test_a_job_that_loses_its_worker_too_often_has_failed(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        for _ in range(backend.settings.max_attempts):
            _claim(backend, job_id, lease_seconds=-1)
            assert reap(backend) == 1
        job = job_of(backend.database, job_id)
        assert (job.status, job.losses) == (Status.FAILED, 3)
        assert job.failure is not None
        assert job.failure["code"] == "worker_lost"
        assert job.failure["retryable"]
        assert job.failure["hint"]
        assert job.finished_at is not None
        assert reap(backend) == 0

    def test_a_cancelled_job_whose_worker_is_silent_is_cancelled(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        _claim(backend, job_id, lease_seconds=-1)
        _cancel(backend, job_id)
        assert reap(backend) == 1
        assert job_of(backend.database, job_id).status == Status.CANCELLED

    def test_a_lease_that_holds_is_left_alone(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        _claim(backend, job_id)
        assert reap(backend) == 0
        assert job_of(backend.database, job_id).status == Status.RUNNING

    def test_a_claim_takes_queued_jobs_only(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        _claim(backend, job_id, lease_seconds=-1)
        with backend.database.write() as session:
            assert amalgamations.claim(session, job_id, worker="other", lease_seconds=60) is None

    def test_a_stale_worker_cannot_write_after_its_job_went_on(self, backend: Backend) -> None:
        job_id = add_job(backend.database)
        stale = _claim(backend, job_id, lease_seconds=-1)
        reap(backend)
        _claim(backend, job_id)
        with backend.database.write() as session:
            assert amalgamations.write_fenced(session, job_id, stale, {"stage": "training"}) is None
            assert not amalgamations.tell(session, job_id, stale, kind="stage", message="stale")

    def test_caretakers_at_once_settle_a_loss_once(self, backend: Backend) -> None:
        job_ids = [add_job(backend.database) for _ in range(5)]
        for job_id in job_ids:
            _claim(backend, job_id, lease_seconds=-1)
        with ThreadPoolExecutor(4) as threads:
            settled = list(threads.map(lambda _: reap(backend), range(4)))
        assert sum(settled) == len(job_ids)
        assert all(job_of(backend.database, job_id).losses == 1 for job_id in job_ids)

    def test_a_dead_worker_s_leases_end_at_once(self, backend: Backend) -> None:
        mine, other = add_job(backend.database), add_job(backend.database)
        _claim(backend, mine, worker="dead")
        _claim(backend, other, worker="alive")
        with backend.database.write() as session:
            assert amalgamations.end_leases_of(session, "dead") == 1
        assert reap(backend) == 1
        assert job_of(backend.database, other).status == Status.RUNNING


class TestDispatch:
    def test_a_queued_job_is_sent_once_until_its_message_may_be_lost(
        self, backend: Backend, redis_url: str
    ) -> None:
        job_id = add_job(backend.database)
        assert dispatch(backend) == 1
        assert dispatch(backend) == 0
        assert _sent(redis_url) == [job_id]
        impatient = replace(
            backend, settings=backend.settings.model_copy(update={"dispatch_again_seconds": -1})
        )
        assert dispatch(impatient) == 1
        assert _sent(redis_url) == [job_id, job_id]

    def test_two_dispatchers_send_every_job(self, backend: Backend, redis_url: str) -> None:
        job_ids = {add_job(backend.database) for _ in range(10)}
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda _: dispatch(backend), range(2)))
        assert set(_sent(redis_url)) == job_ids
        assert dispatch(backend) == 0

    def test_a_running_job_is_not_sent(self, backend: Backend, redis_url: str) -> None:
        _claim(backend, add_job(backend.database))
        assert dispatch(backend) == 0
        assert _sent(redis_url) == []


class TestThread:
    def test_it_reaps_and_dispatches_on_its_own(self, backend: Backend, redis_url: str) -> None:
        job_id = add_job(backend.database)
        _claim(backend, job_id, lease_seconds=-1)
        with caretaking(backend), caretaking(backend):
            wait_until(lambda: _sent(redis_url), "the job is sent")
        assert job_of(backend.database, job_id).losses == 1
        assert set(_sent(redis_url)) == {job_id}

    def test_a_broker_outage_is_told_once_and_survived(
        self, backend: Backend, redis_url: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        job_id = add_job(backend.database)
        gone = TaskQueue("redis://127.0.0.1:1/0")
        caplog.set_level(logging.WARNING, logger="app.services.caretaker")
        caretaker = Caretaker(replace(backend, queue=gone))
        for _ in range(3):
            caretaker._attempt("dispatching queued jobs", dispatch)
        assert len(caplog.records) == 1
        assert job_of(backend.database, job_id).dispatched_at is None
        caretaker._attempt("dispatching queued jobs", lambda _: dispatch(backend))
        assert caplog.records[-1].message.endswith("works again")
        assert _sent(redis_url) == [job_id]
        gone.close()

    def test_a_database_outage_is_survived(self, backend: Backend, tmp_path: Path, redis_url: str) -> None:
        missing = Database(f"sqlite:///{tmp_path / 'nothing-in-it.db'}")
        caretaker = Caretaker(replace(backend, database=missing))
        caretaker.start()
        wait_until(partial(len, caretaker._troubles), "the outage is noticed")
        caretaker._backend = backend
        job_id = add_job(backend.database)
        wait_until(lambda: _sent(redis_url), "the job is sent")
        caretaker.stop()
        assert set(_sent(redis_url)) == {job_id}
        missing.close()
