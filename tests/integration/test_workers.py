"""Who works here: rows that come and go with the processes, on both engines."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli import application
from app.persistence import amalgamations, workers
from app.persistence.database import Database
from app.persistence.tables import Worker
from app.persistence.time import now
from app.persistence.workers import FORGOTTEN_SECONDS, Seen
from app.services.backend import Backend
from app.services.leftovers import WORKERS, find_all
from app.services.live import LiveJobs
from app.services.metrics import Metrics
from app.services.sweeper import sweep
from app.settings import Settings, get_settings
from tests.jobs import add_job
from tests.servers import wait_until
from worker.alive import Hearing
from worker.presence import Presence


def show(database: Database, name: str, silent_seconds: float = 0) -> None:
    with database.write() as session:
        workers.show(session, f"wrk-{name}", name=name, host="here", pid=7, version="0.2")
        session.flush()
        row = update(Worker).where(Worker.name == name).values(seen_at=now(-silent_seconds))
        session.execute(row, execution_options={"synchronize_session": False})


def hold_a_job(database: Database, name: str) -> str:
    job_id = add_job(database)
    with database.write() as session:
        assert amalgamations.claim(session, job_id, worker=name, lease_seconds=60)
    return job_id


def every(database: Database) -> list[Seen]:
    with database.read() as session:
        return list(workers.every(session))


class TestRows:
    def test_tell_what_a_worker_does_by_its_leases(self, database: Database) -> None:
        show(database, "idle")
        show(database, "busy")
        job_id = hold_a_job(database, "busy")
        assert [(each.name, each.job_id) for each in every(database)] == [("busy", job_id), ("idle", None)]

    def test_are_written_anew_when_a_worker_that_was_forgotten_comes_back(self, database: Database) -> None:
        show(database, "one")
        with database.write() as session:
            workers.remove_named(session, "one")
        assert every(database) == []
        show(database, "one")
        show(database, "one")
        assert [each.name for each in every(database)] == ["one"]

    def test_of_the_silent_are_no_living_workers_and_the_sweeper_takes_them(self, backend: Backend) -> None:
        show(backend.database, "alive")
        show(backend.database, "silent", backend.settings.lease_seconds + 1)
        show(backend.database, "long dead", FORGOTTEN_SECONDS + 1)
        with backend.database.read() as session:
            assert workers.count(session, backend.settings.lease_seconds) == {"idle": 1, "busy": 0}
        assert [left.name for left in find_all(backend)] == [WORKERS]
        assert [left.name for left in sweep(backend)] == [WORKERS]
        assert [each.name for each in every(backend.database)] == ["alive", "silent"]
        assert list(find_all(backend)) == []


def test_prometheus_counts_who_is_alive_by_what_they_do(backend: Backend) -> None:
    for name in ("a", "b", "c"):
        show(backend.database, name)
    show(backend.database, "dead", backend.settings.lease_seconds + 1)
    hold_a_job(backend.database, "b")
    text = Metrics(backend, LiveJobs(backend)).text().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    told = {sample.labels["state"]: sample.value for sample in families["muka_workers"].samples}
    assert told == {"idle": 2, "busy": 1}


@pytest.fixture
def shell(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[CliRunner]:
    monkeypatch.setenv("MUKA_DATABASE_URL", str(settings.database_url))
    monkeypatch.setenv("MUKA_LEASE_SECONDS", "60")
    get_settings.cache_clear()
    yield CliRunner()
    get_settings.cache_clear()


class TestCommand:
    def test_lists_them(self, shell: CliRunner, database: Database) -> None:
        show(database, "idle")
        show(database, "busy")
        show(database, "dead", 120)
        job_id = hold_a_job(database, "busy")
        said = shell.invoke(application(), ["workers"])
        assert said.exit_code == 0, said.output
        rows = {line.split()[0]: line for line in said.stdout.splitlines()}
        assert rows["busy"].rstrip().endswith(job_id)
        assert rows["idle"].rstrip().endswith("nothing")
        assert rows["dead"].rstrip().endswith("is silent")
        assert re.search(r" 1[2-9]\d s ago ", rows["dead"])

    def test_says_what_to_do_when_there_is_none(self, shell: CliRunner) -> None:
        assert "muka worker" in shell.invoke(application(), ["workers"]).stderr


IDLE = """
import sys, time
from app.settings import Settings
from worker.presence import Presence
Presence(Settings(database_url=sys.argv[1], data_dir=sys.argv[2], worker_silence_seconds=4), "here").start()
print("there", flush=True)
time.sleep(600)
"""


@contextmanager
def present(settings: Settings, silence_seconds: float) -> Iterator[list[int]]:
    """A worker without a broker; answers the statuses with which it would have ended."""
    ends: list[int] = []
    own = settings.model_copy(update={"worker_silence_seconds": silence_seconds})
    presence = Presence(own, "here", leave=ends.append)
    presence.start()
    try:
        yield ends
    finally:
        presence.stop()


class TestPresence:
    def test_is_a_row_until_the_clean_end(self, settings: Settings, database: Database) -> None:
        with present(settings, 60) as ends:
            row = wait_until(lambda: every(database), "the worker shows itself")[0]
            assert (row.name, row.job_id, row.silent_seconds < 60) == ("here", None, True)
            wait_until(lambda: _seen_again(database, row), "it shows itself again")
        assert (every(database), ends) == ([], [])

    def test_an_idle_worker_without_a_word_from_its_broker_ends(self, settings: Settings) -> None:
        with present(settings, 0.4) as ends:
            wait_until(lambda: ends, "it ends")
        assert set(ends) == {1}

    def test_a_worker_that_holds_a_job_or_hears_its_broker_stays(
        self, settings: Settings, database: Database
    ) -> None:
        job_id = hold_a_job(database, "here")
        with present(settings, 0.4) as ends:
            row = wait_until(lambda: every(database), "the worker shows itself")[0]
            wait_until(lambda: _seen_again(database, row, seconds=1.2), "three times the silence is over")
            assert ends == []
            hears = threading.Event()
            threading.Thread(target=_hear, args=(hears,)).start()
            with database.write() as session:
                amalgamations.end_leases_of(session, "here")
                amalgamations.change_status(
                    session,
                    job_id,
                    "queued",
                    "given back",
                    only_from=("running",),
                    values={"lease_owner": None},
                )
            row = every(database)[0]
            wait_until(lambda: _seen_again(database, row, seconds=1.2), "three times the silence is over")
            assert (ends, row.job_id) == ([], None)
            hears.set()
            wait_until(lambda: ends, "it hears nothing any more and ends")

    def test_the_time_in_which_the_worker_itself_was_frozen_is_no_silence_of_the_broker(
        self, settings: Settings
    ) -> None:
        with subprocess.Popen(
            [sys.executable, "-c", IDLE, str(settings.database_url), str(settings.data_dir)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "there\n"
            worker.send_signal(signal.SIGSTOP)
            time.sleep(12)
            worker.send_signal(signal.SIGCONT)
            _, told = worker.communicate(timeout=60)
        silent = re.search(r"no word from the broker for (\d+) s", told)
        assert silent is not None, told
        assert int(silent[1]) < 12

    def test_no_process_is_forked_while_it_is_at_work(self, settings: Settings) -> None:
        """Or that process would wait for ever for what the thread had in its hands."""
        presence = Presence(settings, "here")
        begun, over = threading.Event(), threading.Event()

        def work(_: Session) -> None:
            begun.set()
            time.sleep(0.3)
            over.set()

        presence.start()
        thread = threading.Thread(target=presence._write, args=(work,))
        thread.start()
        assert begun.wait(60)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # that is what this test is about
            child = os.fork()
        if child == 0:
            os._exit(0 if over.is_set() and not presence._at_work.locked() else 1)
        assert os.waitpid(child, 0)[1] == 0
        thread.join()
        presence.stop()


def _seen_again(database: Database, row: Seen, seconds: float = 0) -> bool:
    with database.read() as session:
        seen = session.scalar(select(Worker.seen_at))
    return seen is not None and (seen - row.seen_at).total_seconds() > seconds


def _hear(done: threading.Event) -> None:
    """A broker that answers."""
    while not done.wait(0.05):
        Hearing.at = time.monotonic()
