"""What Postgres does for us when one of our processes is there, and does nothing."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.persistence import workers
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.settings import Settings
from tests.jobs import add_job, job_of
from tests.servers import wait_until
from worker.presence import Presence

HOLDS = """
import sys, time
import app.persistence.database as module
module.IDLE_TRANSACTION_SECONDS = 1
from sqlalchemy import update
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
with Database(sys.argv[1]).write() as session:
    session.execute(update(Amalgamation).values(stage="held"))
    print("locked", flush=True)
    time.sleep(600)
"""


def test_a_process_that_is_frozen_within_a_transaction_does_not_keep_its_locks(
    migrated_postgres_url: Callable[[], str],
) -> None:
    url = migrated_postgres_url()
    database = Database(url)
    job_id = add_job(database)
    command = [sys.executable, "-c", HOLDS, url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as frozen:
        try:
            assert frozen.stdout is not None
            assert frozen.stdout.readline() == "locked\n"
            os.kill(frozen.pid, signal.SIGSTOP)
            with database.write() as session:
                session.execute(text("SET LOCAL lock_timeout = 30000"))
                session.execute(update(Amalgamation).values(stage="taken"))
        finally:
            frozen.kill()
    assert job_of(database, job_id).stage == "taken"
    database.close()


def test_who_was_frozen_within_a_transaction_has_lost_a_connection_and_no_more(
    migrated_postgres_url: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An `OperationalError`, which workers wait out: whatever else is raised fails their job."""
    monkeypatch.setattr("app.persistence.database.IDLE_TRANSACTION_SECONDS", 0.2)
    database = Database(migrated_postgres_url())

    def write(*statements: str) -> None:
        with database.write() as session:
            for statement in statements:
                session.execute(text(statement))
                time.sleep(1)

    for statements in (["SELECT 1", "SELECT 2"], ["SELECT 1"]):  # the second meets it, or the commit
        with pytest.raises(OperationalError, match="idle-in-transaction"):
            write(*statements)
    with database.write() as session:
        assert session.scalar(text("SELECT 3")) == 3
    database.close()


def test_a_worker_that_was_frozen_while_it_showed_itself_goes_on_to_do_so(
    migrated_postgres_url: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.persistence.database.IDLE_TRANSACTION_SECONDS", 0.2)
    url, show, frozen = migrated_postgres_url(), workers.show, threading.Event()

    def freeze_once(session: Session, *arguments: Any, **facts: Any) -> None:
        show(session, *arguments, **facts)
        if not frozen.is_set():
            frozen.set()
            time.sleep(1)

    monkeypatch.setattr(workers, "show", freeze_once)
    settings = Settings(database_url=url, data_dir=tmp_path, heartbeat_seconds=0.1)
    presence, database = Presence(settings, "here"), Database(url)
    presence.start()

    def is_shown() -> bool:
        with database.read() as session:
            return "here" in {each.name for each in workers.every(session)}

    try:
        wait_until(is_shown, "it is shown", seconds=20)
    finally:
        presence.stop()
        database.close()


def test_a_connection_that_is_in_use_at_the_end_is_closed_when_it_is_returned(
    migrated_postgres_url: Callable[[], str],
) -> None:
    """As by a thread that nobody waits for: left open, Postgres would keep it until our process ends."""
    database = Database(migrated_postgres_url())
    with database.read() as session:
        connection = session.connection().connection.dbapi_connection
        assert connection is not None
        database.close()
        assert not connection.closed
    assert connection.closed


def test_connections_that_the_server_has_ended_are_made_anew(
    migrated_postgres_url: Callable[[], str],
) -> None:
    """As after a restart of Postgres, or when an administrator ends them."""
    url = migrated_postgres_url()
    ours, administrator = Database(url), Database(url)
    other_sessions = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with ours.read() as first, ours.read() as second:
        for session in (first, second):
            session.execute(text("SELECT 1"))
    with administrator.read() as session:
        session.execute(text(f"SELECT pg_terminate_backend(pid) {other_sessions}"))
        wait_until(lambda: not session.scalar(text(f"SELECT count(*) {other_sessions}")), "both have ended")
    with ours.read() as session:
        assert session.scalar(text("SELECT 1")) == 1
    with ours.write() as session:
        session.execute(text("CREATE TABLE written (number integer)"))
    ours.close()
    administrator.close()


def test_a_read_takes_one_way_there_and_back_a_statement(migrated_postgres_url: Callable[[], str]) -> None:
    """No BEGIN, no ROLLBACK, no question whether the connection lives: each would cost what a query costs."""
    database = Database(migrated_postgres_url())
    own = "SELECT xact_start = query_start FROM pg_stat_activity WHERE pid = pg_backend_pid()"
    with database.read() as session:
        assert session.scalar(text(own))
        assert session.scalar(text(own)), "a transaction of its own"
    with database.write() as session:
        session.scalar(text(own))
        assert not session.scalar(text(own))
    database.close()
