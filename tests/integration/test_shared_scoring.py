"""A job whose scoring is shared with real helper processes makes the student that it makes alone."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import torch
from sqlalchemy import select

from app.domain.shards import ShardStatus
from app.domain.status import Status
from app.domain.stored_outputs import SHARD_TEXTS
from app.persistence import migrate, workers
from app.persistence.database import Database
from app.persistence.shards import Claim
from app.persistence.tables import Shard
from app.settings import Settings
from app.storage import open_store
from app.task_queue import QUEUE
from tests.bench import Bench, teacher_folders
from tests.jobs import add_corpus, events_of, job_of
from tests.servers import wait_until
from tests.tiny_models import TEXTS
from worker.muka.precision import resolve
from worker.sharing import Sharing

ROOT = Path(__file__).parents[2]
SHARDS = 2
METHODS = {
    "fixed": {"name": "muka", "mc_samples": 3},
    "adaptive": {"name": "muka", "mc_samples": 6, "adaptive": True},
}
TRAINING = {"epochs": 1, "batch_size": 256, "max_length": 16}


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return teacher_folders(tmp_path_factory.mktemp("teachers"))


def _bench(folder: Path, url: str, folders: list[Path], **settings: Any) -> Bench:
    own = Settings(
        data_dir=folder, store_dir=folder / "store", database_url=url, lease_seconds=600, **settings
    )
    bench = Bench.at(own, Database(url), open_store(folder / "store"), folders)
    bench.settings = own
    different = [f"{TEXTS[i % len(TEXTS)]} {i}" for i in range(SHARDS * SHARD_TEXTS)]
    bench.corpus_id = add_corpus(bench.database, bench.store, different)
    return bench


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, folders: list[Path]) -> Callable[[str], str]:
    """The weights of the student that a worker makes which nobody helps."""
    made: dict[str, str] = {}

    def weights(method: str) -> str:
        if method not in made:
            folder = tmp_path_factory.mktemp("alone")
            url = f"sqlite:///{folder / 'muka.db'}"
            migrate.upgrade(url)
            bench = _bench(folder, url, folders, share_shards=None)
            job_id = bench.job(training=TRAINING, whole_method=METHODS[method])
            assert bench.run(job_id) == 0
            made[method] = bench.weights(job_id)
            bench.database.close()
        return made[method]

    return weights


@pytest.fixture
def bench(tmp_path: Path, database_url: str, redis_url: str, folders: list[Path]) -> Iterator[Bench]:
    """Of the worker `here`, which sees another one that is idle."""
    bench = _bench(tmp_path, database_url, folders, share_shards=2, share_seconds=0, broker_url=redis_url)
    with bench.database.write() as session:
        workers.show(session, "wrk-1", name="helper 0", host="here", pid=1, version="0.2")
    yield bench
    bench.database.close()


@contextmanager
def helping(bench: Bench, job_id: str, name: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process that a worker starts when it is called to help."""
    own = {
        "MUKA_DATA_DIR": str(bench.settings.data_dir),
        "MUKA_STORE_DIR": str(bench.settings.store_dir),
        "MUKA_DATABASE_URL": str(bench.settings.database_url),
        "MUKA_LEASE_SECONDS": "20",
        "MUKA_HEARTBEAT_SECONDS": "1",
        **environment,
    }
    command = [sys.executable, "-m", "worker.helper", job_id, "1", name]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, **own})
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def status_of_helped(bench: Bench, name: str) -> set[str]:
    """Of the shards that this helper has taken."""
    with bench.database.read() as session:
        return set(session.scalars(select(Shard.status).where(Shard.worker == name)))


def before_the_first_shard(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], object]) -> None:
    """What happens when the shards are open, and before the holder takes one."""
    take, todo = Sharing._take, [meanwhile]

    def taking(sharing: Sharing, name: str) -> Claim | None:
        if todo:
            todo.pop()()
        return take(sharing, name)

    monkeypatch.setattr(Sharing, "_take", taking)


def shares(bench: Bench, job_id: str) -> dict[str, int]:
    told = [event.data["workers"] for event in events_of(bench.database, job_id) if "workers" in event.data]
    return told[0] if told else {}


@pytest.mark.parametrize("method", METHODS)
def test_two_helpers_and_the_holder_make_the_same_student(
    bench: Bench, alone: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    job_id = bench.job(training=TRAINING, whole_method=METHODS[method])
    with ExitStack() as stack:
        processes: list[subprocess.Popen[bytes]] = []

        def start() -> None:
            names = ("helper 0", "helper 1") if method == "fixed" else ("helper 0",)
            processes.extend(stack.enter_context(helping(bench, job_id, name)) for name in names)
            for name, process in zip(names, processes, strict=True):

                def has_begun(name: str = name, process: subprocess.Popen[bytes] = process) -> bool:
                    """Or comes too late: the other one may have done everything before it has started."""
                    return bool(status_of_helped(bench, name)) or process.poll() == 0

                wait_until(has_begun, f"{name} takes a shard", seconds=200)

        before_the_first_shard(monkeypatch, start)
        assert bench.run(job_id) == 0
        assert [process.wait(60) for process in processes] == [0] * len(processes)
    assert job_of(bench.database, job_id).status == Status.SUCCEEDED
    by = shares(bench, job_id)
    assert sum(by.values()) == (2 * SHARDS if method == "fixed" else SHARDS)
    assert set(by) & {f"helper {n}" for n in range(len(processes))}
    report = job_of(bench.database, job_id).report
    assert report is not None
    assert all(
        teacher["passes_computed"] > 0 and not teacher["shards_reused"] for teacher in report["teachers"]
    )
    assert bench.weights(job_id) == alone(method)
    with redis.Redis.from_url(str(bench.settings.broker_url)) as broker:
        assert broker.llen(QUEUE), "idle workers were called"


def test_a_helper_that_is_killed_in_the_middle_of_a_shard_leaves_no_trace(
    bench: Bench, alone: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.job(training=TRAINING, whole_method=METHODS["fixed"])

    def kill_one() -> None:
        with helping(bench, job_id, "helper 0") as process:
            wait_until(lambda: status_of_helped(bench, "helper 0"), "it takes a shard", seconds=200)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert status_of_helped(bench, "helper 0") >= {ShardStatus.TAKEN}

    before_the_first_shard(monkeypatch, kill_one)
    assert bench.run(job_id) == 0
    assert bench.weights(job_id) == alone("fixed")


def test_a_helper_that_is_told_to_stop_gives_its_shard_back(
    bench: Bench, alone: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = bench.job(training=TRAINING, whole_method=METHODS["fixed"])

    def stop_one() -> None:
        with helping(bench, job_id, "helper 0") as process:
            wait_until(lambda: status_of_helped(bench, "helper 0"), "it takes a shard", seconds=200)
            process.terminate()
            assert process.wait(60) == 0
        assert ShardStatus.TAKEN not in status_of_helped(bench, "helper 0")

    before_the_first_shard(monkeypatch, stop_one)
    assert bench.run(job_id) == 0
    assert bench.weights(job_id) == alone("fixed")


def test_who_would_compute_other_numbers_does_not_help(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the helper's `auto` is what the holder's is not."""
    job_id = bench.job(training=TRAINING, whole_method=METHODS["fixed"])
    other = "float32" if resolve("auto", torch.device("cpu")) == torch.bfloat16 else "bfloat16"

    def refuse() -> None:
        with bench.database.write() as session:
            for shard in session.scalars(select(Shard)):
                shard.precision = other
        with helping(bench, job_id, "helper 0") as process:
            assert process.wait(200) == 1
        assert status_of_helped(bench, "helper 0") == set()

    before_the_first_shard(monkeypatch, refuse)
    assert bench.run(job_id) == 0
    assert shares(bench, job_id) == {}
