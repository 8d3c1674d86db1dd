"""Which schema a database has, and which one this code wants: without Alembic, which no API process needs."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import inspect, text

from app.persistence.database import Database

_VERSIONS = "alembic_version"
"""Alembic's own table: one row, one column."""


@dataclass(frozen=True)
class SchemaState:
    """Which revision a database has, and which one this code wants."""

    current: str | None
    """None: an empty database."""
    head: str
    is_newer: bool = False
    """The database is of a newer muka than this one."""

    @property
    def is_current(self) -> bool:
        """True when nothing is to be done."""
        return self.current == self.head


def state(url: str) -> SchemaState:
    """Look, change nothing."""
    database = Database(url)
    try:
        with database.engine.connect() as connection:
            is_there = inspect(connection).has_table(_VERSIONS)
            found = connection.scalars(text(f"SELECT version_num FROM {_VERSIONS}")).all() if is_there else ()  # noqa: S608  (a constant)
    finally:
        database.close()
    if len(found) > 1:
        raise RuntimeError(f"the table {_VERSIONS} has several rows, {found}: muka writes only one")
    known, current = revisions(), next(iter(found), None)
    return SchemaState(current, known[-1], is_newer=current is not None and current not in known)


def revisions() -> list[str]:
    """All that this code knows, oldest first: each names its file (`0001_initial.py`)."""
    known = sorted(path.name.partition("_")[0] for path in (migrations() / "versions").glob("[0-9]*_*.py"))
    if not known:
        raise RuntimeError("this installation of muka carries no migrations: install it again")
    return known


def migrations() -> Path:
    """Where they are, in a checkout and in an installed wheel."""
    spec = importlib.util.find_spec("migrations")
    if spec is None or spec.origin is None:
        raise RuntimeError("this installation of muka carries no migrations: install it again")
    return Path(spec.origin).parent
