"""Workers whose broker falls silent: frozen with SIGSTOP, so that every connection to it stays open."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from app.domain.status import TERMINAL, Status
from app.persistence import workers
from app.persistence.database import Database
from app.settings import Settings
from app.storage import open_store
from app.task_queue import TaskQueue
from tests.bench import Bench, teacher_folders
from tests.e2e.service import Muka, muka, serving
from tests.jobs import events_of, job_of
from tests.servers import redis_server, wait_until

SILENCE = {"MUKA_WORKER_SILENCE_SECONDS": "4"}
WORKER, BROKER = "celery.*worker", "broker.sock"


@pytest.fixture
def broker() -> Iterator[tuple[str, int]]:
    """Of this test alone: its URL and its pid."""
    with redis_server() as url:
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])  # type: ignore[index]
        yield url, pid


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _names(database: Database) -> list[str]:
    with database.read() as session:
        return [each.name for each in workers.every(session)]


@contextmanager
def _worker(folder: Path, broker_url: str, **environment: str) -> Iterator[Muka]:
    own = {"MUKA_DATA_DIR": str(folder), "MUKA_BROKER_URL": broker_url, "MUKA_WORKER_NAME": "one"}
    with muka(["worker"], folder, own | environment) as worker:
        yield worker


def test_a_worker_keeps_its_job_and_ends_when_it_is_idle(
    broker: tuple[str, int], sqlite_url: str, tmp_path: Path
) -> None:
    database, (url, pid) = Database(sqlite_url), broker
    folders = teacher_folders(tmp_path / "teachers")
    bench = Bench.at(
        Settings(data_dir=tmp_path, broker_url=url), database, open_store(tmp_path / "store"), folders
    )
    job_id = bench.job(training={"epochs": 120})
    with _worker(tmp_path, url, **SILENCE) as worker:
        wait_until(lambda: _names(database) == ["one"], "the worker shows itself")
        _send(url, job_id)
        wait_until(lambda: any(e.type == "metric" for e in events_of(database, job_id)), "it trains")
        with frozen(pid):
            wait_until(lambda: job_of(database, job_id).status in TERMINAL, "the job ends", seconds=180)
            job = job_of(database, job_id)
            assert (job.status, job.attempt) == (Status.SUCCEEDED, 1), job.failure
            assert worker.process.wait(60) == 1
        assert "no word from the broker" in worker.output()
        assert _names(database) == []
    database.close()


def _send(url: str, job_id: str) -> None:
    queue = TaskQueue(url)
    queue.enqueue(job_id)
    queue.close()


def test_a_worker_that_never_reaches_its_broker_ends(
    broker: tuple[str, int], sqlite_url: str, tmp_path: Path
) -> None:
    url, pid = broker
    with frozen(pid), _worker(tmp_path, url, MUKA_DATABASE_URL=sqlite_url, **SILENCE) as worker:
        assert worker.process.wait(60) == 1
        assert "no word from the broker" in worker.output()


def test_the_supervisor_starts_another_one_which_works(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with serving(data_dir, **SILENCE) as service:
        database = Database(f"sqlite:///{data_dir / 'muka.db'}")
        wait_until(lambda: _names(database), "the worker shows itself")
        first = service.child(WORKER)
        with frozen(service.child(BROKER)):
            wait_until(
                lambda: "the worker ended with 1 and starts again" in service.output(), "it is replaced"
            )
        folders = teacher_folders(tmp_path / "teachers")
        bench = Bench.at(Settings(data_dir=data_dir), database, open_store(data_dir / "store"), folders)
        job_id = bench.job()
        wait_until(lambda: job_of(database, job_id).status in TERMINAL, "the job ends", seconds=180)
        assert job_of(database, job_id).status == Status.SUCCEEDED
        assert service.child(WORKER) != first
        assert len(_names(database)) == 1
        database.close()
