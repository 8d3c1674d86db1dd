"""muka as in production, for tests that break it: Postgres, Redis, an API and workers, all supervised.

Everything is real: the servers are processes of their own, jobs are submitted over HTTP, and what dies is
started again with the same command.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import psycopg

from app.client import MukaClient
from app.domain.status import TERMINAL, Status
from app.persistence import migrate
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.storage import ArtifactStore, open_store
from tests.bench import teacher_folders
from tests.chaos.kept import Kept
from tests.e2e.service import QUICK
from tests.jobs import events_of, job_of, student_of
from tests.servers import Server, free_port, running_postgres, running_redis, wait_until
from tests.tiny_models import TEXTS

LEASE_SECONDS = float(os.environ.get("MUKA_TEST_LEASE_SECONDS", "15"))
"""Longer than a worker of this machine is silent: on a busy one it takes its time to start an attempt."""
PROMISED_SECONDS = 12 * LEASE_SECONDS
"""In which a job of this suite ends, whatever happens to it; on a quiet machine a tenth of it is enough."""
SETTINGS = QUICK | {
    "MUKA_LEASE_SECONDS": str(LEASE_SECONDS),
    "MUKA_DISPATCH_AGAIN_SECONDS": "10",
    # Often enough, and leaves the processor to the jobs.
    "MUKA_CARETAKER_SECONDS": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass
class Installation:
    """What runs, and doors into it."""

    folder: Path
    postgres: Server
    redis: Server
    database: Database
    store: ArtifactStore
    environment: dict[str, str]
    within: Sequence[str]
    api: Kept
    url: str
    workers: list[Kept]
    client: MukaClient
    texts: int
    epochs: int
    _numbers: Iterator[int] = field(default_factory=lambda: count(64))

    # --- Jobs ---

    @cached_property
    def teachers(self) -> list[str]:
        """Uploaded."""
        return [self.client.models.upload(each).id for each in teacher_folders(self.folder / "teachers")]

    @cached_property
    def corpus(self) -> str:
        """Uploaded: different texts, of more than one shard if there are more than a thousand."""
        path = self.folder / "corpus.txt"
        path.write_text("\n".join(f"{TEXTS[i % 12]} {TEXTS[i // 12 % 12]} {i}" for i in range(self.texts)))
        return self.client.corpora.upload(path).id

    def recipe(self) -> dict[str, Any]:
        """The same student every time, and yet nothing that another job has computed can be reused.

        For stored teacher outputs are those of a maximal length, and every text is shorter than each of them.
        """
        training = {"epochs": self.epochs, "batch_size": 64, "learning_rate": 1e-3, "precision": "float32"}
        return {
            "teachers": self.teachers,
            "corpus": self.corpus,
            "method": {"name": "muka", "mc_samples": 1},
            "training": training | {"max_length": next(self._numbers)},
        }

    def submit(self, **recipe: Any) -> str:
        """Over HTTP; answers the job's id."""
        return self.client.amalgamations.submit({**self.recipe(), **recipe}).id

    def tells(self, job_id: str, kind: str, seconds: float = PROMISED_SECONDS, **data: Any) -> None:
        """Returns when the job's log has such an event."""

        def told() -> bool:
            found = (event for event in events_of(self.database, job_id) if event.type == kind)
            return any(data.items() <= event.data.items() for event in found)

        wait_until(told, f"{job_id} tells of {kind} {data}", seconds=seconds)

    def ended(self, job_id: str, seconds: float = PROMISED_SECONDS) -> Amalgamation:
        """The row, once the job has ended, which it must do in time."""

        def look() -> Amalgamation | None:
            job = job_of(self.database, job_id)
            return job if job.status in TERMINAL else None

        return wait_until(look, f"{job_id} ends", seconds=seconds)

    def weights(self, job_id: str) -> str:
        """sha256 of what the job has made."""
        with self.store.open(f"{student_of(self.database, job_id).storage_prefix}/model.safetensors") as file:
            return hashlib.sha256(file.read()).hexdigest()

    @cached_property
    def undisturbed(self) -> str:
        """The same of a job to which nothing happens."""
        job_id = self.submit()
        job = self.ended(job_id)
        assert job.failure is None
        assert job.status == Status.SUCCEEDED
        return self.weights(job_id)

    # --- Processes ---

    def holder(self, job_id: str) -> Kept:
        """The worker that has the job, once one has."""

        def look() -> Kept | None:
            owner = job_of(self.database, job_id).lease_owner
            return next((worker for worker in self.workers if worker.log.stem == owner), None)

        return wait_until(look, f"a worker has {job_id}", seconds=PROMISED_SECONDS)

    def answers(self) -> bool:
        """Whether the API is ready, with everything that it stands on."""
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def another_api(self, name: str) -> Kept:
        """Of the same installation; the caller starts and stops it."""
        return Kept(name, ["serve", "--port", "0"], self.folder, self.environment, within=self.within)


@contextmanager
def installation(
    folder: Path,
    *,
    workers: int = 2,
    texts: int = 1100,
    epochs: int = 1,
    store: Path | None = None,
    within: Sequence[str] = (),
    seen: Path | None = None,
    **settings: str,
) -> Iterator[Installation]:
    """One that answers; all of it ends with the block, and nothing of it may be left.

    Args:
        folder: for everything; empty.
        workers: how many.
        texts: in the corpus.
        epochs: of every training.
        store: where the artifacts are; None: in the folder.
        within: what stands before every command, for instance `nsenter …`.
        seen: where the store is for who is not within.
        settings: `MUKA_…`, beside those of this suite.
    """
    with ExitStack() as stack:
        postgres = stack.enter_context(running_postgres())
        redis = stack.enter_context(running_redis("--appendonly", "yes", "--maxmemory-policy", "noeviction"))
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            connection.execute("CREATE DATABASE muka")
        url = postgres.url.removesuffix("postgres") + "muka"
        migrate.upgrade(url)
        database = Database(url)
        stack.callback(database.close)
        store = store or folder / "store"
        environment = SETTINGS | {
            "MUKA_DATABASE_URL": url,
            "MUKA_BROKER_URL": redis.url,
            "MUKA_STORE_DIR": str(store),
            "MUKA_SCRATCH_DIR": str(folder / "scratch"),
            "MUKA_DATA_DIR": str(folder / "unused"),
            **settings,
        }
        port = free_port()
        address = f"http://127.0.0.1:{port}"
        api = Kept("api", ["serve", "--port", str(port)], folder, environment, within=within)
        names = [f"worker-{number}" for number in range(workers)]
        staff = [
            Kept(name, ["worker"], folder, environment | {"MUKA_WORKER_NAME": name}, within=within)
            for name in names
        ]
        for process in (api, *staff):
            process.start()
            stack.callback(process.stop)
        client = MukaClient(address, retries=10)
        stack.callback(client.close)
        made = Installation(
            folder=folder,
            postgres=postgres,
            redis=redis,
            database=database,
            store=open_store(seen or store),
            environment=environment,
            within=within,
            api=api,
            url=address,
            workers=staff,
            client=client,
            texts=texts,
            epochs=epochs,
        )
        wait_until(made.answers, "the API is ready", seconds=PROMISED_SECONDS)
        yield made
