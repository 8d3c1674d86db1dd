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
