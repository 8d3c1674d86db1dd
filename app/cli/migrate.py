"""`muka migrate`."""

import typer

from app.cli.messages import give_up, usable_settings


def migrate() -> None:
    """Bring the database's schema up to date; safe to run at any time, and from several machines."""
    from sqlalchemy.exc import OperationalError

    from app.persistence import migrate as schema

    url = usable_settings().resolved_database_url()
    try:
        before = schema.state(url)
        schema.upgrade(url)
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
    if before.is_current:
        typer.echo(f"the schema is up to date ({before.head})")
    else:
        typer.echo(f"the schema went from {before.current or 'nothing'} to {before.head}")
