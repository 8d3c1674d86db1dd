"""What Postgres does for us when one of our processes is there, and does nothing."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

from sqlalchemy import text, update

from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from tests.jobs import add_job, job_of
from tests.servers import wait_until

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
