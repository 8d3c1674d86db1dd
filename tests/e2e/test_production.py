"""Postgres, Redis and workers of their own, by settings only: the same code path."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.domain.status import TERMINAL, Status
from app.persistence.amalgamations import LEASED
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.storage import ArtifactStore, open_store
from tests.e2e.service import QUICK, ROOT, Muka, descendants, muka
from tests.jobs import add_corpus, add_job, add_teacher, job_of, messages_of, student_of
from tests.servers import wait_until
from tests.tiny_models import TEXTS, make_teacher

LABELS = (("travel", "money"), ("food", "money", "other"))


@dataclass
class Installation:
    environment: dict[str, str]
    folder: Path
    database: Database
    store: ArtifactStore

    def job(self, models: Path, epochs: int) -> str:
        teachers = [
            add_teacher(self.store, make_teacher(models / str(i), labels, seed=i), labels)
            for i, labels in enumerate(LABELS)
        ]
        corpus_id = add_corpus(self.database, self.store, TEXTS * 4)
        training = {"epochs": epochs, "batch_size": 8}
        return add_job(
            self.database,
            teachers=teachers,
            corpus_id=corpus_id,
            training=training,
            method={"name": "muka", "mc_samples": 1},
        )

    def trains(self, job_id: str, attempt: int) -> None:
        prefix = f"jobs/{job_id}/attempt-{attempt}/"
        wait_until(lambda: any(self.store.list(prefix)), f"attempt {attempt} writes a checkpoint")

    def ended(self, job_id: str) -> Amalgamation:
        def look() -> Amalgamation | None:
            job = job_of(self.database, job_id)
            return job if job.status in TERMINAL else None

        return wait_until(look, f"{job_id} ends")


@pytest.fixture
def installation(
    tmp_path: Path, empty_postgres_url: Callable[[], str], redis_url: str
) -> Iterator[Installation]:
    url = empty_postgres_url()
    environment = {
        "MUKA_DATABASE_URL": url,
        "MUKA_BROKER_URL": redis_url,
        "MUKA_STORE_DIR": str(tmp_path / "store"),
        "MUKA_DATA_DIR": str(tmp_path / "unused"),
        "MUKA_SCRATCH_DIR": str(tmp_path / "scratch"),
        "MUKA_LEASE_SECONDS": "10",
    }
    command = [sys.executable, "-m", "app.cli", "migrate"]
    told = subprocess.check_output(command, cwd=ROOT, env={**os.environ, **QUICK, **environment}, text=True)
    assert "the schema went from nothing to" in told
    database = Database(url)
    yield Installation(environment, tmp_path, database, open_store(tmp_path / "store"))
    assert not (tmp_path / "unused").exists()
    database.close()


@pytest.fixture
def api(installation: Installation) -> Iterator[Muka]:
    with muka(["serve", "--port", "0"], installation.folder, installation.environment) as service:
        assert service.url
        yield service
        assert [line for _, line in descendants(service.process.pid) if "ps -ax" not in line] == []


def _worker(installation: Installation, name: str) -> AbstractContextManager[Muka]:
    return muka(["worker"], installation.folder, installation.environment | {"MUKA_WORKER_NAME": name})


def test_a_worker_that_is_stopped_and_one_that_is_frozen_hand_the_job_on(
    installation: Installation, api: Muka, tmp_path: Path
) -> None:
    job_id = installation.job(tmp_path / "models", epochs=150)
    with _worker(installation, "first") as first:
        installation.trains(job_id, 1)
        first.process.send_signal(signal.SIGTERM)
        assert first.process.wait(20) == 0
    job = job_of(installation.database, job_id)
    assert (job.status in {Status.QUEUED, *LEASED}, job.losses) == (True, 0)

    with _worker(installation, "second") as second:
        installation.trains(job_id, 2)
        frozen = [second.process.pid, *(pid for pid, _ in descendants(second.process.pid))]
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)
        try:
            with _worker(installation, "third"):
                job = installation.ended(job_id)
                assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 3, 1)
                before = messages_of(installation.database, job_id)
        finally:  # or its end could not be asked for
            for pid in frozen:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        ended = wait_until(
            lambda: re.search(rf"attempt 2 of {job_id} ended with (.+)", second.output()),
            "the stale attempt sees that it is stale",
        )
        assert ended[1] in {"3", "1"}, "1: the third took so long that the watch of frozen processes ended it"
    assert messages_of(installation.database, job_id) == before
    assert student_of(installation.database, job_id).storage_prefix.endswith("/attempt-3")
    story = [message for message in before if "claimed" in message or "attempt" in message]
    assert story == [
        "claimed by first",
        "attempt 1 stopped with its worker; the job is queued again",
        "claimed by second",
        "attempt 2 was lost: its worker fell silent; the job is queued again",
        "claimed by third",
    ]
