"""What Alembic runs.

Over the connection that `app.persistence.migrate` gives it; from its own command line
(`alembic revision --autogenerate`), over the database that the settings name.
"""

from alembic import context
from sqlalchemy import Connection

from app.persistence.database import Database
from app.persistence.migrate import compare_type
from app.persistence.tables import Base
from app.settings import get_settings


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_type=compare_type,
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with context.begin_transaction():
        context.run_migrations()


def _main() -> None:
    given: Connection | None = context.config.attributes.get("connection")
    if given is not None:
        _migrate(given)
        return
    database = Database(get_settings().resolved_database_url())
    with database.engine.begin() as connection:
        _migrate(connection)
    database.close()


_main()
