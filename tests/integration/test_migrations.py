"""The migrated schema is the one that the models describe, on both engines, whoever migrates."""

import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import MetaData, RowMapping, inspect, select, text
from sqlalchemy.exc import DBAPIError

from app.domain.shards import Unit
from app.domain.stored_outputs import Computation
from app.persistence import migrate, schema_state, shards, workers
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Base

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["sqlite", "postgres"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path, empty_postgres_url: Callable[[], str]) -> str:
    return f"sqlite:///{tmp_path / 'empty.db'}" if request.param == "sqlite" else empty_postgres_url()


def test_models_equal_the_migrated_schema(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": migrate.compare_type})
        assert compare_metadata(context, Base.metadata) == []


def test_an_empty_database_needs_migrating_and_then_does_not(empty_url: str) -> None:
    assert schema_state.state(empty_url).current is None
    assert not schema_state.state(empty_url).is_current
    migrate.upgrade(empty_url)
    migrate.upgrade(empty_url)
    assert schema_state.state(empty_url).is_current


def test_files_are_named_as_their_revisions_and_each_follows_the_one_before_it() -> None:
    scripts = ScriptDirectory(str(schema_state.migrations()))
    newest_first = list(scripts.walk_revisions())
    assert [script.revision for script in reversed(newest_first)] == schema_state.revisions()
    assert [script.down_revision for script in newest_first] == [
        *reversed(schema_state.revisions()[:-1]),
        None,
    ]


def test_to_look_at_a_schema_takes_no_alembic_which_would_stay_in_the_memory_of_every_process(
    empty_url: str,
) -> None:
    code = f"""
import sys
from app.persistence import schema_state
print(schema_state.state({empty_url!r}), "alembic" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    head = schema_state.revisions()[-1]
    assert told.stdout == f"SchemaState(current=None, head={head!r}, is_newer=False) False\n"


def test_processes_that_migrate_at_once_all_succeed(empty_url: str) -> None:
    code = f"from app.persistence import migrate; migrate.upgrade({empty_url!r})"
    racers = [
        subprocess.Popen([sys.executable, "-W", "error", "-c", code], cwd=ROOT, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    complaints = [racer.communicate(timeout=60)[1].decode() for racer in racers]
    assert complaints == [""] * 4
    assert schema_state.state(empty_url).is_current


def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    with database.engine.begin() as connection:
        connection.execute(text("CREATE TABLE students (id TEXT)"))
    with pytest.raises(DBAPIError, match="already exists"):
        migrate.upgrade(empty_url)
    assert set(inspect(database.engine).get_table_names()) == {"students"}
    database.close()


def test_the_downgrade_leaves_no_table(empty_url: str) -> None:
    migrate.upgrade(empty_url)
    migrate.downgrade(empty_url, "base")
    database = Database(empty_url)
    assert inspect(database.engine).get_table_names() == ["alembic_version"]
    database.close()


def test_a_filled_database_of_0_1_keeps_its_rows(empty_url: str) -> None:
    migrate.upgrade(empty_url, "0001")
    database = Database(empty_url)
    with database.engine.begin() as connection:
        connection.execute(text(_OF_0_1.format(at="2026-11-01 10:00:00.000000")))
    migrate.upgrade(empty_url)
    with database.engine.connect() as connection:
        kept = connection.execute(text("SELECT api_key_id, key, resource_id FROM idempotency_keys")).all()
    assert [tuple(row) for row in kept] == [("default", "order-1", "amg-1")]
    migrate.downgrade(empty_url, "0001")
    with database.engine.connect() as connection:
        assert connection.scalar(text("SELECT owner FROM idempotency_keys")) == "default"
    database.close()


def test_a_filled_database_of_0_2_keeps_its_rows(empty_url: str) -> None:
    database, before = _filled(empty_url, "0002")
    migrate.upgrade(empty_url)
    assert _rows(database, before) == before
    with database.write() as session:
        workers.show(session, "wrk-1", name="w", host="h", pid=1, version="0.2")
        assert shards.open_all(session, "amg-1", 1, [Unit(0, 0)], Computation("float32", "cpu"))
    migrate.downgrade(empty_url, "0002")
    assert _rows(database) == before
    database.close()


def test_jobs_of_before_have_no_table_of_their_own_and_a_downgrade_forgets_nothing_else(
    empty_url: str,
) -> None:
    database, before = _filled(empty_url, "0003")
    migrate.upgrade(empty_url)
    assert _rows(database, before) == before
    with database.write() as session:
        job = session.get_one(Amalgamation, "amg-1")
        assert job.text_table is None
        job.text_table = "jobs/amg-1/attempt-1/texts.parquet"
    migrate.downgrade(empty_url, "0003")
    assert _rows(database) == before
    database.close()


Rows = dict[str, list[dict[str, str]]]
"""Of each table, by column."""


def _filled(url: str, revision: str) -> tuple[Database, Rows]:
    """A database of that revision with a row or more in its tables, and these."""
    migrate.upgrade(url, revision)
    database = Database(url)
    with database.engine.begin() as connection:
        for row in _OF_0_2:
            connection.execute(text(row.format(at="2026-11-01 10:00:00.000000")))
    return database, _rows(database)


def _rows(database: Database, known: Rows | None = None) -> Rows:
    """Everything that is in the tables; `known`: in those tables and columns only."""
    inspected = MetaData()
    inspected.reflect(database.engine)
    tables = inspected.tables.keys() - {"alembic_version"} if known is None else known.keys()
    with database.engine.connect() as connection:
        found = {name: connection.execute(select(inspected.tables[name])).mappings().all() for name in tables}
    return {
        name: [{key: str(row[key]) for key in _columns(row, name, known)} for row in rows]
        for name, rows in found.items()
    }


def _columns(row: RowMapping, table: str, known: Rows | None) -> Iterable[str]:
    return row.keys() if not known or not known[table] else known[table][0]


_OF_0_2 = (
    "INSERT INTO amalgamations (id, owner, status, recipe, resolved, metadata, transitions, attempt, losses, "
    "progress, events, keep_best, created_at) "
    "VALUES ('amg-1', 'acme', 'running', '{{}}', '{{}}', '{{}}', '[]', 1, 0, '{{}}', 1, false, '{at}')",
    "INSERT INTO events (amalgamation_id, sequence, type, message, data, created_at) "
    "VALUES ('amg-1', 1, 'status', 'the job is queued', '{{}}', '{at}')",
    "INSERT INTO needed_outputs (amalgamation_id, key) VALUES ('amg-1', 'scores/1.safetensors')",
    "INSERT INTO api_keys (id, owner, prefix, digest, scopes, created_at) "
    "VALUES ('key-1', 'acme', 'muka_1', 'd', '[]', '{at}')",
    "INSERT INTO webhooks (id, owner, created_at, url, events, secret) "
    "VALUES ('whk-1', 'acme', '{at}', 'https://example.org', '[]', 's')",
    "INSERT INTO counters (name, value) VALUES ('lost_attempts', 3)",
)
_OF_0_1 = (
    "INSERT INTO idempotency_keys (owner, key, route, fingerprint, resource_id, response, created_at) "
    "VALUES ('default', 'order-1', 'POST /amalgamations', 'f', 'amg-1', '{{}}', '{at}')"
)
