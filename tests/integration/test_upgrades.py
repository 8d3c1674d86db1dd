"""While an installation is upgraded: processes and a database of different versions meet."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text, update

from app.domain.recipe import RECIPE_VERSION, RecipeNotKnownError, read_stored
from app.domain.status import Status
from app.persistence import migrate, schema_state
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from tests.jobs import add_job, events_of, job_of
from worker.lease import claim

ROOT = Path(__file__).parents[2]
NEWER = "9999_of_next_year"


def _claim(database: Database, job_id: str) -> int | None:
    return claim(database, job_id, worker="old", lease_seconds=60)


def _store(database: Database, job_id: str, **columns: Any) -> None:
    with database.write() as session:
        session.execute(update(Amalgamation).where(Amalgamation.id == job_id).values(**columns))


class TestAJobOfANewerAPI:
    def test_waits_for_a_newer_worker_and_says_so_once(self, database: Database) -> None:
        job_id = add_job(database, recipe_version=RECIPE_VERSION + 1)
        assert [_claim(database, job_id) for _ in range(3)] == [None] * 3
        job, told = job_of(database, job_id), events_of(database, job_id)
        assert (job.status, job.attempt, job.events) == (Status.QUEUED, 0, 2)
        assert [event.type for event in told] == ["status", "warning"]
        assert f"version {RECIPE_VERSION + 1}" in told[1].message
        assert "bring the workers to the version of the API" in told[1].message

    def test_is_taken_as_soon_as_a_worker_knows_it(self, database: Database) -> None:
        job_id = add_job(database, recipe_version=RECIPE_VERSION + 1)
        known = {**job_of(database, job_id).resolved, "recipe_version": RECIPE_VERSION}
        assert _claim(database, job_id) is None
        _store(database, job_id, resolved=known)
        assert _claim(database, job_id) == 1

    @pytest.mark.parametrize(
        ("change", "where"),
        [
            ({"method": {"name": "of_next_year"}}, "method.name"),
            ({"method": {"name": "muka", "of_next_year": 1}}, "method.of_next_year"),
            ({"training": {"of_next_year": 1}}, "training.of_next_year"),
            ({"of_next_year": 1}, "of_next_year"),
        ],
    )
    def test_what_is_unknown_in_it_is_not_guessed(
        self, database: Database, change: dict[str, Any], where: str
    ) -> None:
        job_id = add_job(database)
        _store(database, job_id, recipe=job_of(database, job_id).recipe | change)
        assert _claim(database, job_id) is None
        assert where in events_of(database, job_id)[-1].message

    def test_can_be_cancelled_while_it_waits(self, database: Database) -> None:
        job_id = add_job(database, recipe_version=RECIPE_VERSION + 1)
        _claim(database, job_id)
        _store(database, job_id, status=Status.CANCELLED)
        assert _claim(database, job_id) is None
        assert job_of(database, job_id).events == 2

    def test_a_recipe_without_a_version_is_none(self) -> None:
        with pytest.raises(RecipeNotKnownError, match="version None"):
            read_stored({}, {})


class TestADatabaseOfAnotherVersion:
    """Refused before anything is done, with what to do."""

    @pytest.mark.parametrize("command", ["migrate", "worker", "serve"])
    def test_newer(self, empty_postgres_url: Callable[[], str], tmp_path: Path, command: str) -> None:
        url = empty_postgres_url()
        migrate.upgrade(url)
        self._mark(url, NEWER)
        told = _refusal(command, url, tmp_path)
        assert f"the database's schema is {NEWER}, of a newer muka" in told
        assert schema_state.state(url).current == NEWER

    def test_newer_in_the_embedded_mode(self, sqlite_url: str, tmp_path: Path) -> None:
        self._mark(sqlite_url, NEWER)
        assert "of a newer muka" in _refusal("migrate", sqlite_url, tmp_path)

    @pytest.mark.parametrize("command", ["worker", "serve"])
    def test_older(self, empty_postgres_url: Callable[[], str], tmp_path: Path, command: str) -> None:
        url = empty_postgres_url()
        migrate.upgrade(url, "0001")
        assert "run `muka migrate`" in _refusal(command, url, tmp_path)
        assert schema_state.state(url).current == "0001"

    def _mark(self, url: str, revision: str) -> None:
        database = Database(url)
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = :to"), {"to": revision})
        database.close()


def _refusal(command: str, url: str, folder: Path) -> str:
    """What `muka COMMAND` says when it gives up."""
    own = {"MUKA_DATABASE_URL": url, "MUKA_DATA_DIR": str(folder), "MUKA_BROKER_URL": "redis://127.0.0.1:1/0"}
    arguments = [sys.executable, "-m", "app.cli", command, *(["--port", "0"] if command == "serve" else [])]
    done = subprocess.run(
        arguments,
        env={**os.environ, **own},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    return done.stderr
