"""The heartbeat's thread and the fenced door, on both engines."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from sqlalchemy import make_url

from app.domain.status import Status
from app.persistence.database import Database
from tests.jobs import add_job, events_of, job_of
from tests.servers import wait_until
from worker.lease import (
    Lease,
    LeaseLostError,
    StopReason,
    claim,
    record_loss,
    record_loss_of,
)


def _lease(database: Database, *, seconds: float = 5, name: str = "w") -> Lease:
    job_id = add_job(database)
    attempt = claim(database, job_id, worker=name, lease_seconds=seconds)
    assert attempt is not None
    return Lease(database, job_id, attempt, lease_seconds=seconds, heartbeat_seconds=0.1)


def _stopped(lease: Lease) -> StopReason | None:
    wait_until(lease.should_stop, "the run is told to stop")
    return lease.stop_reason


class TestHeartbeat:
    def test_it_renews_the_lease(self, database: Database) -> None:
        lease = _lease(database)
        before = job_of(database, lease.job_id).lease_until
        assert before is not None
        with lease.kept():
            wait_until(lambda: job_of(database, lease.job_id).lease_until > before, "it is renewed")
        assert not lease.should_stop()

    def test_it_writes_fresh_columns(self, database: Database) -> None:
        lease = _lease(database)
        lease.fresh_columns = lambda: {"progress": {"fraction": 0.5}}
        with lease.kept():
            wait_until(lambda: job_of(database, lease.job_id).progress, "progress is written")
        assert job_of(database, lease.job_id).progress == {"fraction": 0.5}

    def test_it_sees_a_cancel(self, database: Database) -> None:
        lease = _lease(database)
        with lease.kept(), database.write() as session:
            lease.change(session, Status.CANCELLING, "cancel asked for")
            session.commit()
            assert _stopped(lease) == StopReason.CANCELLED

    def test_it_sees_that_another_attempt_has_the_job(self, database: Database) -> None:
        lease = _lease(database)
        with lease.kept():
            record_loss(database, lease.job_id, lease.attempt, "gone", max_attempts=3)
            assert _stopped(lease) == StopReason.LOST
        with pytest.raises(LeaseLostError):
            lease.tell("stage", "stale")
        assert events_of(database, lease.job_id)[-1].message != "stale"

    def test_it_sees_that_the_time_is_over(self, database: Database) -> None:
        lease = _lease(database)
        lease.deadline = time.monotonic()
        with lease.kept():
            assert _stopped(lease) == StopReason.TIMEOUT

    def test_the_first_reason_counts_unless_the_job_is_lost(self, database: Database) -> None:
        lease = _lease(database)
        for reason in (StopReason.CANCELLED, StopReason.WARM_STOP):
            lease.stop(reason)
        assert lease.stop_reason == StopReason.CANCELLED
        lease.stop(StopReason.LOST)
        assert lease.stop_reason == StopReason.LOST


class TestLosses:
    def test_a_worker_s_loss_counts_only_while_it_holds_the_job(self, database: Database) -> None:
        lease = _lease(database, name="mine")
        assert record_loss_of(database, lease.job_id, worker="other", max_attempts=3) is None
        assert record_loss_of(database, lease.job_id, worker="mine", max_attempts=3) == Status.QUEUED
        assert record_loss_of(database, lease.job_id, worker="mine", max_attempts=3) is None
        assert job_of(database, lease.job_id).losses == 1

    def test_an_older_attempt_s_loss_is_no_news(self, database: Database) -> None:
        lease = _lease(database)
        assert record_loss(database, lease.job_id, 1, "gone", max_attempts=3) == Status.QUEUED
        claim(database, lease.job_id, worker="w", lease_seconds=60)
        assert record_loss(database, lease.job_id, 1, "gone", max_attempts=3) is None
        assert job_of(database, lease.job_id).status == Status.RUNNING


class TestOutage:
    @contextmanager
    def _closed(self, server_url: str, database: Database) -> Iterator[None]:
        """Postgres refuses new connections to the database, and cuts the others."""
        name = make_url(database.url).database
        with psycopg.connect(server_url, autocommit=True) as admin:
            admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')  # type: ignore[arg-type]
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )
            try:
                yield
            finally:
                admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')  # type: ignore[arg-type]

    @pytest.fixture
    def postgres(self, postgres_url: str) -> Iterator[Database]:
        opened = Database(postgres_url)
        yield opened
        opened.close()

    def test_a_short_one_is_waited_out(self, postgres: Database, postgres_server_url: str) -> None:
        lease = _lease(postgres, seconds=30)
        with lease.kept():
            writer = threading.Thread(target=lease.tell, args=("stage", "written in the end"))
            with self._closed(postgres_server_url, postgres):
                writer.start()
                writer.join(1)
                assert writer.is_alive()
            writer.join(10)
        assert not lease.should_stop()
        assert events_of(postgres, lease.job_id)[-1].message == "written in the end"

    def test_one_that_outlasts_the_lease_loses_the_job(
        self, postgres: Database, postgres_server_url: str
    ) -> None:
        lease = _lease(postgres, seconds=0.5)
        with self._closed(postgres_server_url, postgres):
            with lease.kept():
                assert _stopped(lease) == StopReason.LOST
            with pytest.raises(LeaseLostError):
                lease.tell("stage", "too late")
