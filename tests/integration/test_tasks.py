"""What a worker does with a message before it claims the job."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from app.domain.status import Status
from app.persistence import waiting
from app.persistence.database import Database
from app.services.backend import Backend
from app.settings import Settings, get_settings
from tests.api_objects import add_model
from tests.chaos.disk import small_disk
from tests.jobs import add_job, events_of, job_of
from worker import store_check, tasks
from worker.lease import claim, give_back
from worker.store_check import store_trouble

Run = Callable[[Path, str], None]


@pytest.fixture
def run(database: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Receives a message about a job, with the store in this folder. The attempt itself is left out."""

    def received(store: Path, job_id: str) -> None:
        monkeypatch.setenv("MUKA_STORE_DIR", str(store))
        get_settings.cache_clear()
        tasks.run_amalgamation(job_id)

    monkeypatch.setenv("MUKA_DATABASE_URL", database.url)
    monkeypatch.setattr(tasks, "run_attempt", lambda *_: None)
    monkeypatch.setattr(tasks, "_AFTER_TROUBLE_SECONDS", 0.0)
    yield received
    get_settings.cache_clear()


def test_a_job_waits_while_the_store_is_away_and_says_so_once(
    backend: Backend, run: Run, tmp_path: Path
) -> None:
    add_model(backend, ("refund", "invoice"))  # so there are files, and an empty folder cannot be the store
    job_id = add_job(backend.database)
    for _ in range(3):
        run(tmp_path / "not-mounted", job_id)
    job, told = job_of(backend.database, job_id), events_of(backend.database, job_id)
    assert (job.status, job.attempt) == (Status.QUEUED, 0)
    assert [event.type for event in told] == ["status", "warning"]
    assert told[1].message.startswith("a worker left the job in the queue: ")
    assert "not-mounted" not in told[1].message, "where the store is, is no business of the owner's"
    run(backend.settings.resolved_store_dir(), job_id)
    assert job_of(backend.database, job_id).status == Status.RUNNING


def test_a_warning_is_told_once_a_time_in_the_queue(database: Database) -> None:
    """Also where two workers leave a job in turn, each for its own reason."""
    job_id = add_job(database)

    def warn(*messages: str) -> list[bool]:
        with database.write() as session:
            return [waiting.warn_once(session, job_id, message) for message in messages]

    assert warn("no store", "too new", "no store", "too new") == [True, True, False, False]
    attempt = claim(database, job_id, worker="w", lease_seconds=60)
    assert attempt is not None
    assert warn("no store") == [False], "it does not wait"
    with database.write() as session:
        assert give_back(session, job_id, attempt)
    assert warn("no store", "no store") == [True, False]


def test_a_store_that_hangs_is_away(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Hanging:
        def check(self) -> None:
            time.sleep(60)

    monkeypatch.setattr(store_check, "configured_store", lambda *_: Hanging())
    assert store_trouble(settings, database, 0.1) == "the artifact store does not answer"


def test_settings_that_cannot_be_those_of_a_store_are_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "nonsense")
    assert store_trouble(Settings(store_url="s3://bucket/prefix"), database)


def test_a_job_that_nobody_can_claim_costs_no_look_at_the_store(
    backend: Backend, run: Run, tmp_path: Path
) -> None:
    job_id = add_job(backend.database)
    run(backend.settings.resolved_store_dir(), job_id)
    run(tmp_path / "nowhere", job_id)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("task", [tasks.run_amalgamation, tasks.help_scoring])
def test_a_database_that_is_away_ends_a_task_and_is_no_failure_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, task: Any
) -> None:
    """The worker would hold a hundred megabytes more after it had told Celery of some."""
    monkeypatch.setenv("MUKA_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:9/nowhere")
    get_settings.cache_clear()
    assert task.apply(args=("amg-1",)).status == "SUCCESS"
    get_settings.cache_clear()
    assert "amg-1: the database does not answer: OperationalError" in caplog.messages


def test_a_full_disk_is_no_reason_to_wait(database: Database, run: Run, tmp_path: Path) -> None:
    """The job fails and its failure says what to do; in the queue it would wait for ever."""
    job_id = add_job(database)
    with small_disk(tmp_path / "mounted", "64k") as disk:
        disk.fill()
        run(disk.seen / "store", job_id)
    assert job_of(database, job_id).status == Status.RUNNING
