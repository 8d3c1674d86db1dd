"""Bring the database's schema to the one that this code knows. Safe when several processes try at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, text

from app.persistence.database import Database
from app.persistence.schema_state import migrations
from app.persistence.time import UtcDateTime

_POSTGRES_LOCK = 0x6D756B61
"""Of `pg_advisory_xact_lock`: "muka"."""


def upgrade(url: str, revision: str = "head") -> None:
    """Apply what is missing, all or nothing. A second process waits, and finds nothing left to do."""
    _run(command.upgrade, url, revision)


def downgrade(url: str, revision: str) -> None:
    """Go back to an older schema, all or nothing; what the newer one added is lost."""
    _run(command.downgrade, url, revision)


def _run(change: Callable[[Config, str], None], url: str, revision: str) -> None:
    database = Database(url)
    try:
        with _alone(database) as connection:
            config = _config()
            config.attributes["connection"] = connection
            change(config, revision)
    finally:
        database.close()


@contextmanager
def _alone(database: Database) -> Iterator[Connection]:
    """One transaction under a lock that every migrating process takes first."""
    with database.engine.connect().execution_options(muka_write=True) as connection:
        if connection.dialect.name == "sqlite":
            # A table that Alembic rebuilds is dropped: its children must not go with it. Within a
            # transaction the pragma would do nothing, so it goes past SQLAlchemy, which would begin one.
            driver: Any = connection.connection.driver_connection
            driver.execute("PRAGMA foreign_keys = OFF").close()
        with connection.begin():  # SQLite: BEGIN IMMEDIATE, which is the lock
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _POSTGRES_LOCK})
            yield connection


def compare_type(
    _context: MigrationContext, _inspected: Any, _metadata: Any, inspected_type: Any, metadata_type: Any
) -> bool | None:
    """For autogenerate: a time is text on SQLite, which is no difference. None: compare as usual."""
    if isinstance(metadata_type, UtcDateTime):
        return "CHAR" not in str(inspected_type) and "TIMESTAMP" not in str(inspected_type)
    return None


def _config() -> Config:
    """Made here, since a wheel carries no alembic.ini."""
    config = Config()
    config.set_main_option("script_location", str(migrations()).replace("%", "%%"))
    return config
