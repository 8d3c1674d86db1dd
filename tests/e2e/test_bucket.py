"""A cluster whose machines share nothing but Postgres, Redis and a bucket: a whole job through HTTP."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.client import Job, MukaClient
from tests.e2e.service import QUICK, ROOT, Muka, descendants, muka, serving
from tests.hub_clients import HubClient, linked
from tests.servers import S3Server, wait_until
from tests.tiny_models import TEXTS, make_teacher

LABELS = (("travel", "money"), ("food", "money", "other"))
TRAINING = {"epochs": 60, "batch_size": 8, "learning_rate": 1e-3}


@dataclass
class Cluster:
    """Machines are folders: each has its own, and no other knows it."""

    environment: dict[str, str]
    folder: Path

    def on(self, machine: str) -> dict[str, str]:
        folder = self.folder / machine
        folder.mkdir(exist_ok=True)
        own = {"MUKA_DATA_DIR": str(folder / "data"), "MUKA_WORKER_NAME": machine, "TMPDIR": str(folder)}
        return self.environment | own

    def worker(self, machine: str, *queue: str) -> AbstractContextManager[Muka]:
        environment = self.on(machine)
        return muka(["worker", *queue], self.folder / machine, environment)


@pytest.fixture
def cluster(
    tmp_path: Path,
    empty_postgres_url: Callable[[], str],
    redis_url: str,
    s3_server: S3Server,
    bucket_url: str,
) -> Cluster:
    environment = {
        "MUKA_DATABASE_URL": empty_postgres_url(),
        "MUKA_BROKER_URL": redis_url,
        "MUKA_STORE_URL": bucket_url,
        "MUKA_LEASE_SECONDS": "30",
        **s3_server.environment,
    }
    command = [sys.executable, "-m", "app.cli", "migrate"]
    subprocess.check_call(command, cwd=ROOT, env={**os.environ, **QUICK, **environment})
    return Cluster(environment, tmp_path)


@pytest.fixture
def api(cluster: Cluster) -> Iterator[Muka]:
    with muka(["serve", "--port", "0"], cluster.folder, cluster.on("api")) as service:
        assert service.url
        yield service


@pytest.fixture
def client(api: Muka) -> Iterator[MukaClient]:
    with MukaClient(api.url) as opened:
        yield opened


def _submit(client: MukaClient, models: Path) -> Job:
    folders = [make_teacher(models / str(i), labels, seed=i) for i, labels in enumerate(LABELS)]
    corpus = models / "texts.txt"
    corpus.write_text("\n".join(TEXTS * 4))
    return client.amalgamations.create(
        teachers=[client.models.upload(folder) for folder in folders],
        corpus=client.corpora.upload(corpus),
        training=TRAINING,
        method={"name": "muka", "mc_samples": 2},
    )


def _weights(client: MukaClient, job: Job, folder: Path) -> str:
    client.students.download(job.student().id, folder)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


_FETCH = """
import json, pathlib, sys
from huggingface_hub import snapshot_download
folder = pathlib.Path(snapshot_download(sys.argv[1]))
files = [path for path in folder.rglob("*") if path.is_file()]
print(json.dumps({path.relative_to(folder).as_posix(): path.stat().st_size for path in files}))
"""


def test_a_job_outlives_its_machine_and_its_student_is_that_of_a_laptop(
    cluster: Cluster, api: Muka, client: MukaClient, tmp_path: Path
) -> None:
    job = _submit(client, tmp_path / "models")
    with cluster.worker("first") as first:
        wait_until(lambda: client.amalgamations.checkpoints(job.id), "the job trains and saves")
        _kill_all(first)
    shutil.rmtree(cluster.folder / "first")

    with cluster.worker("second"), cluster.worker("third", "--queue", "predictions"):
        job.wait(timeout=300)
        told = [event.message for event in job.events()]
        assert "claimed by second" in told
        assert any(message.startswith("going on from step") for message in told), told
        student = job.student()
        answer = client.students.predict(student, [TEXTS[0]])
        assert answer.data[0].label in student.labels
    weights = _weights(client, job, tmp_path / "student")

    hub = HubClient(linked(tmp_path / "clean", "huggingface_hub"), f"{api.url}/hub", tmp_path / "hf")
    fetched = hub.python(_FETCH, f"students/{student.id}")
    assert fetched == {
        path.relative_to(tmp_path / "student").as_posix(): path.stat().st_size
        for path in (tmp_path / "student").rglob("*")
        if path.is_file()
    }
    assert next(client.amalgamations.texts(job.id)).text == TEXTS[0]
    assert not list(cluster.folder.glob("*/data/store"))
    client.students.delete(student.id)

    with serving(tmp_path / "laptop") as laptop, MukaClient(laptop.url) as undisturbed:
        same = _submit(undisturbed, tmp_path / "again").wait(timeout=300)
        assert _weights(undisturbed, same, tmp_path / "of a folder") == weights


def _kill_all(worker: Muka) -> None:
    """As when the power goes: nobody ends in order."""
    for pid in [worker.process.pid, *(pid for pid, _ in descendants(worker.process.pid))]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    "command", [["serve", "--port", "0"], ["worker"], ["worker", "--queue", "predictions"]]
)
def test_without_its_bucket_nothing_starts(cluster: Cluster, command: list[str]) -> None:
    wrong = cluster.on("api") | {"MUKA_STORE_URL": "s3://never-made/at-all"}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        cwd=ROOT,
        env={**os.environ, **QUICK, **wrong},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "muka: s3://never-made/at-all: there is no bucket 'never-made': create it, or correct "
        "MUKA_STORE_URL\n"
    )
