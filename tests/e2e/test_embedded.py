"""`muka serve` with everything it brings along, and what it survives. Real processes, real signals."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis

from app.domain.status import TERMINAL, Status
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.storage import ArtifactStore, open_store
from app.task_queue import QUEUE, TaskQueue
from tests.e2e.service import ROOT, Muka, descendants, is_alive, serving
from tests.jobs import add_corpus, add_job, add_teacher, events_of, job_of, messages_of, student_of
from tests.servers import wait_until
from tests.tiny_models import TEXTS, make_teacher

LABELS = (("travel", "money"), ("food", "money", "other"))
WORKER, ATTEMPT, BROKER = "celery.*worker", "-m worker amg-", "broker.sock"


@dataclass
class Site:
    """A data folder, with or without a service on it."""

    data_dir: Path
    database: Database
    store: ArtifactStore

    @classmethod
    def at(cls, data_dir: Path) -> "Site":
        return cls(data_dir, Database(f"sqlite:///{data_dir / 'muka.db'}"), open_store(data_dir / "store"))

    def inputs(self, models: Path) -> dict[str, Any]:
        teachers = [
            add_teacher(self.store, make_teacher(models / str(i), labels, seed=i), labels)
            for i, labels in enumerate(LABELS)
        ]
        return {"teachers": teachers, "corpus_id": add_corpus(self.database, self.store, TEXTS * 4)}

    def ended(self, job_id: str) -> Amalgamation:
        def look() -> Amalgamation | None:
            job = job_of(self.database, job_id)
            return job if job.status in TERMINAL else None

        return wait_until(look, f"{job_id} ends")

    def told(self, job_id: str, kind: str) -> None:
        wait_until(
            lambda: any(event.type == kind for event in events_of(self.database, job_id)),
            f"{job_id} tells of a {kind}",
        )

    def attempt_trains(self, job_id: str, attempt: int) -> None:
        """Until this attempt has written a checkpoint of its own."""
        prefix = f"jobs/{job_id}/attempt-{attempt}/"
        wait_until(lambda: any(self.store.list(prefix)), f"attempt {attempt} writes a checkpoint")

    def weights(self, job_id: str) -> str:
        with self.store.open(f"{student_of(self.database, job_id).storage_prefix}/model.safetensors") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muka]:
    with serving(tmp_path_factory.mktemp("muka") / "data", MUKA_MAX_ATTEMPTS="9") as running:
        yield running


@pytest.fixture(scope="module")
def site(service: Muka) -> Iterator[Site]:
    site = Site.at(service.log.parent)
    yield site
    site.database.close()


@pytest.fixture(scope="module")
def inputs(site: Site, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return site.inputs(tmp_path_factory.mktemp("models"))


def _job(site: Site, inputs: dict[str, Any], *, epochs: int = 120) -> str:
    training = {"epochs": epochs, "batch_size": 8, "learning_rate": 1e-3}
    return add_job(site.database, **inputs, training=training, method={"name": "muka", "mc_samples": 2})


@pytest.fixture(scope="module")
def undisturbed(site: Site, inputs: dict[str, Any]) -> str:
    """The weights that every disturbed run must come to as well."""
    job_id = _job(site, inputs)
    job = site.ended(job_id)
    assert job.failure is None
    assert (job.status, job.attempt) == (Status.SUCCEEDED, 1)
    return site.weights(job_id)


def test_killed_again_and_again_a_job_finishes_on_its_own(
    service: Muka, site: Site, inputs: dict[str, Any], undisturbed: str
) -> None:
    """First the attempt, then the pool process above it, then the worker above that."""
    job_id = _job(site, inputs)
    site.told(job_id, "checkpoint")
    os.kill(service.child(ATTEMPT), signal.SIGKILL)

    site.attempt_trains(job_id, 2)
    attempt, worker = service.child(ATTEMPT), service.child(WORKER)
    pool = next(pid for pid, line in descendants(worker) if "celery" in line)
    os.kill(pool, signal.SIGKILL)
    wait_until(lambda: not is_alive(attempt), "the attempt dies with its parent", seconds=30)

    site.attempt_trains(job_id, 3)
    attempt = service.child(ATTEMPT)
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not is_alive(attempt), "the attempt dies with its worker", seconds=30)

    job = site.ended(job_id)
    assert job.failure is None
    assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 4, 3)
    assert site.weights(job_id) == undisturbed
    told = messages_of(site.database, job_id)
    story = [message for message in told if "was lost" in message]
    assert len(story) == 3
    assert "its process was ended by SIGKILL" in story[0]
    assert "the worker's process was ended" in story[1]
    assert "its worker fell silent" in story[2]
    assert sum(message.startswith("going on from step") for message in told) == 3


def test_a_broker_that_is_killed_and_a_message_that_comes_five_times(
    service: Muka, site: Site, inputs: dict[str, Any], undisturbed: str
) -> None:
    first = _job(site, inputs)
    site.told(first, "metric")
    os.kill(service.child(BROKER), signal.SIGKILL)
    second = _job(site, inputs)
    assert (site.ended(first).status, job_of(site.database, first).losses) == (Status.SUCCEEDED, 0)
    url = f"unix://{_broker_socket(service)}"
    queue = TaskQueue(url.replace("unix://", "redis+socket://"))
    for _ in range(5):
        queue.enqueue(second)
    queue.close()
    assert site.ended(second).attempt == 1
    with redis.Redis.from_url(url) as broker:
        wait_until(lambda: not broker.exists(QUEUE), "the repeated messages are taken")
    statuses = [event.data["status"] for event in events_of(site.database, second) if event.type == "status"]
    assert statuses == ["queued", "running", "succeeded"]
    assert site.weights(first) == site.weights(second) == undisturbed


def _broker_socket(service: Muka) -> str:
    service.child(BROKER)
    line = next(line for _, line in descendants(service.process.pid) if BROKER in line)
    return line.split("unixsocket:")[1].strip()


class TestCancel:
    def test_running_and_queued(self, service: Muka, site: Site, inputs: dict[str, Any]) -> None:
        running, queued = _job(site, inputs, epochs=1000), _job(site, inputs)
        site.told(running, "metric")
        for job_id in (queued, running):
            answer = httpx.post(f"{service.url}/amalgamations/{job_id}/cancel")
            assert answer.status_code in (200, 202), answer.text
        before = time.monotonic()
        assert site.ended(running).status == Status.CANCELLED
        assert time.monotonic() - before < 20
        assert job_of(site.database, queued).status == Status.CANCELLED
        assert job_of(site.database, queued).attempt == 0


def test_a_service_that_ends_leaves_nobody_behind_and_its_successor_goes_on(
    tmp_path: Path, undisturbed: str
) -> None:
    """First it is killed, then it is stopped with Ctrl-C, in the middle of the same job."""
    data_dir = tmp_path / "data"
    with serving(data_dir) as service:
        site = Site.at(data_dir)
        job_id = _job(site, site.inputs(tmp_path / "models"))
        site.told(job_id, "checkpoint")
        children = [pid for pid, _ in descendants(service.process.pid)]
        assert len(children) >= 4  # broker, worker, its pool process, the attempt
        service.process.kill()
        service.process.wait()
        wait_until(lambda: not any(map(is_alive, children)), "all children die", seconds=30)
    with serving(data_dir) as service:
        site.attempt_trains(job_id, 2)
        children = [pid for pid, _ in descendants(service.process.pid)]
        service.process.send_signal(signal.SIGINT)
        assert service.process.wait(20) == 0
        assert not any(map(is_alive, children))
        assert service.output().rstrip().endswith("muka has stopped")
        assert "Traceback" not in service.output()
    job = job_of(site.database, job_id)
    assert (job.status, job.losses, job.lease_owner) == (Status.QUEUED, 1, None)
    with serving(data_dir):
        job = site.ended(job_id)
    assert (job.status, job.losses, job.attempt) == (Status.SUCCEEDED, 1, 3)
    assert site.weights(job_id) == undisturbed
    site.database.close()


class TestRefusals:
    def _refused(self, *arguments: str, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )
        assert done.returncode in (1, 2)
        assert "Traceback" not in done.stderr
        return done.stderr

    def test_the_open_network_without_a_key(self, tmp_path: Path) -> None:
        said = self._refused("serve", "--host", "0.0.0.0", MUKA_DATA_DIR=str(tmp_path / "data"))
        assert "MUKA_API_KEY" in said
        assert not (tmp_path / "data").exists()

    def test_a_data_folder_that_is_served_already(self, service: Muka, site: Site) -> None:
        said = self._refused("serve", "--port", "0", MUKA_DATA_DIR=str(site.data_dir))
        assert f"process {service.process.pid}" in said
        assert "MUKA_DATA_DIR" in said

    def test_a_port_that_is_taken(self, service: Muka, tmp_path: Path) -> None:
        port = service.url.rsplit(":", 1)[1]
        said = self._refused("serve", "--port", port, MUKA_DATA_DIR=str(tmp_path / "data"))
        assert "--port 0" in said

    def test_a_worker_without_a_broker(self, tmp_path: Path) -> None:
        assert "MUKA_BROKER_URL" in self._refused("worker", MUKA_DATA_DIR=str(tmp_path))

    def test_an_old_schema_on_postgres(self, empty_postgres_url: Any, tmp_path: Path) -> None:
        said = self._refused(
            "serve",
            MUKA_DATA_DIR=str(tmp_path),
            MUKA_DATABASE_URL=empty_postgres_url(),
            MUKA_BROKER_URL="redis://127.0.0.1:1/0",
        )
        assert "muka migrate" in said

    def test_a_setting_that_makes_no_sense(self, tmp_path: Path) -> None:
        said = self._refused("serve", MUKA_DATA_DIR=str(tmp_path), MUKA_LEASE_SECONDS="1")
        assert "MUKA_HEARTBEAT_SECONDS" in said
