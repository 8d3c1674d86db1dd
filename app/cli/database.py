"""The database, for commands that work on it themselves."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.cli.messages import give_up, usable_settings

if TYPE_CHECKING:
    from app.persistence.database import Database


@contextmanager
def open_database() -> "Iterator[Database]":
    """With the schema that this version needs; gives up when it does not answer."""
    from sqlalchemy.exc import OperationalError

    from app.cli.schema import require_schema
    from app.persistence.database import Database

    settings = usable_settings()
    require_schema(settings)
    database = Database(settings.resolved_database_url())
    try:
        yield database
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
    finally:
        database.close()
