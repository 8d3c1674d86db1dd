"""What commands ask for before they touch the database."""

import logging
from typing import TYPE_CHECKING

from app.cli.messages import give_up

if TYPE_CHECKING:
    from app.persistence.schema_state import SchemaState
    from app.settings import Settings

log = logging.getLogger(__name__)


def require_schema(settings: "Settings") -> None:
    """The schema that this code knows: SQLite is migrated here, Postgres only by `muka migrate`."""
    url = settings.resolved_database_url()
    if url.startswith("sqlite"):
        migrate_schema(url)
    else:
        refuse_other_schema(settings)


def refuse_other_schema(settings: "Settings") -> None:
    """Give up unless the database has the schema that this code knows; change nothing."""
    state = _state(settings.resolved_database_url())
    if not state.is_current:
        found = state.current or "empty"
        give_up(
            f"the database's schema is {found}, this version needs {state.head}: run `muka migrate`", status=1
        )


def require_store(settings: "Settings") -> None:
    """Give up where the database knows of files, and there is no store: it may not be mounted."""
    from app.services.backend import Backend
    from app.storage import StoreAwayError, StoreError

    if settings.store_url is not None:
        return  # a bucket is asked for what it is

    backend = Backend.from_settings(settings)
    try:
        next(backend.store.children("corpora"), None)
    except StoreAwayError as error:
        give_up(
            f"{error} Here MUKA_STORE_DIR is {settings.resolved_store_dir()}. Are its files lost for good? "
            "Then make that file there, and muka begins anew",
            status=1,
        )
    except StoreError as error:
        log.warning("%s", error)  # it may be well again in a moment; /readyz tells
    finally:
        backend.close()


def migrate_schema(url: str) -> "SchemaState":
    """Bring it up to date; answers how it was before."""
    from sqlalchemy.exc import OperationalError

    from app.persistence import migrate

    before = _state(url)
    try:
        migrate.upgrade(url)
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
    return before


def _state(url: str) -> "SchemaState":
    from sqlalchemy.exc import OperationalError

    from app.persistence import schema_state

    try:
        state = schema_state.state(url)
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
    if state.is_newer:
        give_up(
            f"the database's schema is {state.current}, of a newer muka than this one, which knows "
            f"{state.head}: install that version here (nothing was changed)",
            status=1,
        )
    return state
