"""Attempts that stand still, in real processes: in a system call, or in native code that lets nobody run."""

import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.domain.recipe import ResolvedTeacher
from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.database import Database
from app.storage import ArtifactStore
from tests.jobs import add_corpus, add_job, job_of, messages_of
from tests.servers import wait_until
from worker.child import LOST
from worker.lease import claim, record_loss

ROOT = Path(__file__).parents[2]
# torch first, for its import is no progress, and takes longer than these tests want to wait.
ATTEMPT = """
import os, sys
import worker.run_amalgamation
from worker.__main__ import main
os._exit(main(sys.argv[1:]))
"""
LEASE = """
import ctypes, logging, os, sys, time
from app.persistence.database import Database
from worker.lease import Lease
from worker.stall import watched
job_id, attempt = sys.argv[1], int(sys.argv[2])
lease = Lease(
    Database(os.environ["MUKA_DATABASE_URL"]), job_id, attempt, lease_seconds=60, heartbeat_seconds=15
)
"""


@pytest.fixture
def start(database: Database, store: ArtifactStore, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start code as a process of the worker for an attempt at a job."""

    def run(code: str, job_id: str, **settings: str) -> "subprocess.Popen[str]":
        environment = dict(os.environ) | {
            "MUKA_DATA_DIR": str(tmp_path),
            "MUKA_STORE_DIR": str(tmp_path / "store"),
            "MUKA_DATABASE_URL": database.engine.url.render_as_string(hide_password=False),
            "MUKA_STALL_SECONDS": "2",
            **settings,
        }
        attempt = claim(database, job_id, worker="w", lease_seconds=60)
        command = [sys.executable, "-c", textwrap.dedent(code), job_id, str(attempt)]
        return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)

    return run


@pytest.fixture
def stuck_job(database: Database, store: ArtifactStore) -> str:
    """Its texts are in a pipe that nobody writes to: opening it never returns."""
    corpus_id = add_corpus(database, store, ["a"])
    with store.staging() as folder:
        os.mkfifo(folder / "pipe")
        (folder / "pipe").rename(store.local_path(f"corpora/{corpus_id}.parquet"))
    teachers = [_teacher(store, name) for name in ("a", "b")]
    return add_job(database, corpus_id=corpus_id, teachers=teachers)


def _teacher(store: ArtifactStore, name: str) -> ResolvedTeacher:
    with store.staging() as staged:
        (staged / "model").mkdir()
        store.put_folder(f"models/{name}", staged / "model")
    return ResolvedTeacher(
        source="model",
        reference=name,
        object_id=name,
        storage_prefix=f"models/{name}",
        digest=name,
        architecture="BertForSequenceClassification",
        labels=[name],
    )


def _log_of(process: "subprocess.Popen[str]") -> str:
    return process.communicate(timeout=90)[1]


def _is_stuck(database: Database, job_id: str) -> None:
    wait_until(lambda: job_of(database, job_id).stage == "preparing", "it has begun")


class TestSystemCall:
    def test_it_ends_as_timeout_with_the_stacks_in_the_log(
        self, database: Database, start: Callable[..., Any], stuck_job: str
    ) -> None:
        process = start(ATTEMPT, stuck_job)
        said = _log_of(process)
        assert process.returncode == 0, "the row says how it ended"
        job = job_of(database, stuck_job)
        assert (job.status, job.losses) == (Status.FAILED, 0)
        assert job.failure is not None
        assert {name: job.failure[name] for name in ("code", "stage", "retryable")} == {
            "code": "timeout",
            "stage": "preparing",
            "retryable": True,
        }
        assert messages_of(database, stuck_job)[-1] == "failed: the job made no progress for 2 s"
        assert "no progress for 2 s" in said
        assert "in read_texts" in said
        assert "in _beat" in said, "all threads"

    def test_a_cancel_that_it_did_not_hear_is_carried_out(
        self, database: Database, start: Callable[..., Any], stuck_job: str
    ) -> None:
        process = start(ATTEMPT, stuck_job, MUKA_STALL_SECONDS="4", MUKA_HEARTBEAT_SECONDS="0.2")
        _is_stuck(database, stuck_job)
        with database.write() as session:
            amalgamations.change_status(
                session, stuck_job, Status.CANCELLING, "cancel", only_from=(Status.RUNNING,)
            )
        _log_of(process)
        assert process.returncode == 0
        assert job_of(database, stuck_job).status == Status.CANCELLED

    def test_one_that_lost_its_job_writes_nothing(
        self, database: Database, start: Callable[..., Any], stuck_job: str
    ) -> None:
        process = start(ATTEMPT, stuck_job, MUKA_STALL_SECONDS="4")
        _is_stuck(database, stuck_job)
        record_loss(database, stuck_job, 1, "gone", max_attempts=3)
        before = messages_of(database, stuck_job)
        _log_of(process)
        assert process.returncode == LOST
        assert messages_of(database, stuck_job) == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestWatch:
    def test_native_code_that_lets_nobody_run_is_ended_and_left_to_the_parent(
        self, database: Database, start: Callable[..., Any]
    ) -> None:
        job_id = add_job(database)
        code = (
            LEASE
            + """
with watched(lease, lambda: None, stall_seconds=60, frozen_seconds=2):
    time.sleep(1.5)
    ctypes.PyDLL(None).sleep(60)  # PyDLL keeps the interpreter's lock
"""
        )
        started = time.monotonic()
        process = start(code, job_id)
        said = _log_of(process)
        assert process.returncode == 1
        assert time.monotonic() - started < 45
        assert "Timeout" in said
        assert job_of(database, job_id).status == Status.RUNNING

    def test_what_is_slow_but_moves_is_left_alone(
        self, database: Database, start: Callable[..., Any]
    ) -> None:
        code = (
            LEASE
            + """
with watched(lease, lambda: os._exit(9), stall_seconds=3, frozen_seconds=60), lease.kept():
    for number in range(4):
        lease.tell("metric", f"step {number}")
        time.sleep(1)
    for number in range(4):
        lease.fresh_columns = lambda: {"progress": {"step": 1}}
        time.sleep(1)
"""
        )
        process = start(code, add_job(database))
        said = _log_of(process)
        assert (process.returncode, said) == (0, "")
