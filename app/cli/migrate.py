"""`muka migrate`."""

import typer

from app.cli.messages import usable_settings
from app.cli.schema import migrate_schema


def migrate() -> None:
    """Bring the database's schema up to date; safe to run at any time, and from several machines."""
    before = migrate_schema(usable_settings().resolved_database_url())
    if before.is_current:
        typer.echo(f"the schema is up to date ({before.head})")
    else:
        typer.echo(f"the schema went from {before.current or 'nothing'} to {before.head}")
