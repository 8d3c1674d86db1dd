"""One job, scored by several workers: real processes on Postgres and Redis, and real signals."""

import hashlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from app.domain.shards import ShardStatus
from app.domain.status import TERMINAL, Status
from app.domain.stored_outputs import SHARD_TEXTS
from app.persistence import migrate, workers
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Shard
from app.settings import Settings
from app.storage import ArtifactStore, open_store
from tests.bench import LABELS, Bench, teacher_folders
from tests.e2e.service import Muka, descendants, muka
from tests.jobs import add_corpus, add_job, add_teacher, events_of, job_of, student_of
from tests.servers import wait_until
from tests.tiny_models import TEXTS

SHARDS = 16
"""So many that the holder is not through before its helpers have started, whatever else the machine does."""
HELPER = "-m worker.helper amg-"
PATIENCE = 600


@dataclass
class Site:
    """Database, store and API of one test, and the workers that it started."""

    environment: dict[str, str]
    folder: Path
    database: Database
    store: ArtifactStore
    teachers: list[Path]
    workers: dict[str, Muka] = field(default_factory=dict)
    api: Muka = field(init=False)

    def job(self, texts: int = SHARDS * SHARD_TEXTS, passes: int = 12) -> str:
        """With shards that take seconds."""
        models = [add_teacher(self.store, f, labels) for f, labels in zip(self.teachers, LABELS, strict=True)]
        different = [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(texts)]
        corpus_id = add_corpus(self.database, self.store, different)
        training = {"epochs": 1, "batch_size": 256, "max_length": 16}
        return add_job(
            self.database,
            teachers=models,
            corpus_id=corpus_id,
            training=training,
            method={"name": "muka", "mc_samples": passes},
        )

    def start(self, stack: ExitStack, *names: str) -> None:
        """Workers that are idle when this returns."""
        for name in names:
            own = self.environment | {"MUKA_WORKER_NAME": name}
            self.workers[name] = stack.enter_context(muka(["worker"], self.folder, own))
        wait_until(lambda: self._seen() >= set(names), "the workers show themselves", seconds=PATIENCE)

    def _seen(self) -> set[str]:
        with self.database.read() as session:
            return {each.name for each in workers.every(session)}

    def helper_at_work(self) -> str:
        """The name of a worker that has a shard of another one's job in hand."""

        def look() -> str | None:
            taken = (Shard.status == ShardStatus.TAKEN, Shard.lease_until.is_not(None))
            with self.database.read() as session:
                return session.scalar(select(Shard.worker).where(*taken).limit(1))

        return wait_until(look, "somebody helps", seconds=PATIENCE)

    def helpers(self, name: str) -> list[int]:
        """Processes of this worker that help."""
        below = descendants(self.workers[name].process.pid)
        return [pid for pid, line in below if HELPER in line]

    def ended(self, job_id: str) -> Amalgamation:
        def look() -> Amalgamation | None:
            job = job_of(self.database, job_id)
            return job if job.status in TERMINAL else None

        return wait_until(look, f"{job_id} ends", seconds=PATIENCE)

    def shares_nothing(self) -> bool:
        with self.database.read() as session:
            return not session.scalar(select(func.count()).select_from(Shard))

    def holder(self, job_id: str) -> str:
        """Who claimed the job last."""
        told = [event.data["worker"] for event in events_of(self.database, job_id) if "worker" in event.data]
        return str(told[-1])

    def weights(self, job_id: str) -> str:
        with self.store.open(f"{student_of(self.database, job_id).storage_prefix}/model.safetensors") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _served(site: Site) -> Iterator[ExitStack]:
    with ExitStack() as stack:
        site.api = stack.enter_context(muka(["serve", "--port", "0"], site.folder, site.environment))
        yield stack


@pytest.fixture
def site(
    tmp_path: Path, postgres_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    environment = {
        "MUKA_DATABASE_URL": postgres_url,
        "MUKA_BROKER_URL": redis_url,
        "MUKA_STORE_DIR": str(tmp_path / "store"),
        "MUKA_DATA_DIR": str(tmp_path / "data"),
        "MUKA_LEASE_SECONDS": "60",
        "MUKA_SHARE_SECONDS": "0",
        "MUKA_DISPATCH_AGAIN_SECONDS": "5",
    }
    database = Database(postgres_url)
    teachers = teacher_folders(tmp_path_factory.mktemp("teachers"))
    yield Site(environment, tmp_path, database, open_store(tmp_path / "store"), teachers)
    database.close()


def test_three_workers_make_the_same_student_though_a_helper_and_then_the_holder_die(
    site: Site, tmp_path: Path
) -> None:
    with _served(site) as stack:
        site.start(stack, "one", "two", "three")
        job_id = site.job()
        name = site.helper_at_work()
        child = wait_until(lambda: site.helpers(name), "the helper is there")[0]
        os.kill(child, signal.SIGKILL)
        wait_until(lambda: "the help with attempt 1" in site.workers[name].output(), "its worker sees it")
        holder = site.holder(job_id)
        site.workers[holder].process.kill()
        job = site.ended(job_id)
        assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 2, 1), job.failure
        assert site.holder(job_id) != holder
        wait_until(site.shares_nothing, "nothing is shared any more")
    assert site.weights(job_id) == _alone(tmp_path / "alone", site.teachers)


def _alone(folder: Path, teachers: list[Path]) -> str:
    """The weights that a worker comes to which nobody helps."""
    folder.mkdir()
    url = f"sqlite:///{folder / 'muka.db'}"
    migrate.upgrade(url)
    settings = Settings(data_dir=folder, share_shards=None)
    site = Site({}, folder, Database(url), open_store(folder / "store"), teachers)
    bench = Bench(settings, site.database, site.store, [], "")
    job_id = site.job()
    assert bench.run(job_id) == 0
    weights = site.weights(job_id)
    site.database.close()
    return weights


def test_a_job_goes_before_help_and_a_cancel_ends_the_helpers(site: Site) -> None:
    with _served(site) as stack:
        site.start(stack, "one", "two")
        large = site.job(texts=4 * SHARDS * SHARD_TEXTS)
        helper = site.helper_at_work()
        (child,) = wait_until(lambda: site.helpers(helper), "the helper is there")
        os.kill(child, signal.SIGKILL)
        again = wait_until(lambda: set(site.helpers(helper)) - {child}, "it is tried again", seconds=PATIENCE)
        assert job_of(site.database, large).attempt == 1
        assert again
        assert site.helper_at_work() == helper
        small = site.job(texts=100, passes=2)
        assert site.ended(small).status == Status.SUCCEEDED
        assert site.holder(small) == helper
        assert job_of(site.database, large).stage == "scoring"
        assert site.helper_at_work() == helper, "it is called again"
        assert httpx.post(f"{site.api.url}/amalgamations/{large}/cancel").status_code in (200, 202)
        assert site.ended(large).status == Status.CANCELLED
        wait_until(site.shares_nothing, "nothing is shared any more")
        wait_until(lambda: not site.helpers(helper), "the helper ends")
        site.workers[helper].process.send_signal(signal.SIGTERM)
        assert site.workers[helper].process.wait(60) == 0
