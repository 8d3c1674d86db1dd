"""`muka workers`."""

import typer

from app.cli.database import open_database
from app.cli.messages import usable_settings

_NEVER_FOLDED = 1000


def workers() -> None:
    """The worker processes, and what each one does. Asks the database itself, so it needs no key."""
    from rich.console import Console
    from rich.table import Table

    from app.persistence import workers as rows

    alive_seconds = usable_settings().lease_seconds
    with open_database() as database, database.read() as session:
        found = rows.every(session)
    if not found:
        typer.echo("no worker has shown itself: start one with `muka worker`, or with `muka serve`", err=True)
    table = Table("name", "host", "pid", "version", "started", "seen", "does", box=None)
    for each in found:
        does = each.job_id or ("nothing" if each.silent_seconds <= alive_seconds else "is silent")
        seen = f"{each.silent_seconds:.0f} s ago"
        started = f"{each.started_at:%Y-%m-%d %H:%M}"
        table.add_row(each.name, each.host, str(each.pid), each.version, started, seen, does)
    Console(highlight=False, markup=False, width=_NEVER_FOLDED).print(table)
