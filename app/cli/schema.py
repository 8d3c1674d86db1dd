"""What commands ask for before they touch the database."""

from typing import TYPE_CHECKING

from app.cli.messages import give_up

if TYPE_CHECKING:
    from app.settings import Settings


def require_schema(settings: "Settings") -> None:
    """SQLite is migrated here; a database that others use too only by `muka migrate`."""
    from sqlalchemy.exc import OperationalError

    from app.persistence import migrate

    url = settings.resolved_database_url()
    try:
        if url.startswith("sqlite"):
            migrate.upgrade(url)
        elif not (state := migrate.state(url)).is_current:
            give_up(
                f"the database's schema is {state.current or 'empty'}, this version needs {state.head}: "
                "run `muka migrate`",
                status=1,
            )
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
