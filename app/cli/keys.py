"""`muka keys`: who may use the service. Works on the database itself, so it needs no key."""

from datetime import datetime
from typing import Annotated

import typer

from app.cli.database import open_database
from app.cli.messages import give_up
from app.domain.access import Scope

MAX_OWNER_CHARS = 100
_NEVER_FOLDED = 1000
_USUAL = [Scope.READ, Scope.WRITE]

commands = typer.Typer(
    name="keys", help="API keys: who may use the service, and for what.", no_args_is_help=True
)


@commands.command()
def create(
    owner: Annotated[str, typer.Option(help="Whose objects the key opens; keys of one owner share them.")],
    scope: Annotated[
        list[Scope], typer.Option(help="read, write or admin (all); give it once for each.")
    ] = _USUAL,
    name: Annotated[str | None, typer.Option(help="For your own memory.")] = None,
) -> None:
    """Make a key and show it, this once. From the first key on, also loopback asks for one."""
    from app.services import keys

    if not (owner.isprintable() and 1 <= len(owner.strip()) <= MAX_OWNER_CHARS):
        give_up(f"--owner must be a name of 1 to {MAX_OWNER_CHARS} printable characters")
    with open_database() as database:
        row, key = keys.create(database, owner.strip(), scope, name)
    typer.echo(f"{row.id} of {row.owner} ({', '.join(row.scopes)}). The key is shown this once:", err=True)
    typer.echo(key)


@commands.command("list")
def show() -> None:
    """Every key that was made, without its secret."""
    from rich.console import Console
    from rich.table import Table

    from app.services import keys

    with open_database() as database:
        rows = keys.every(database)
    table = Table("id", "key", "owner", "scopes", "name", "created", "last used", "revoked", box=None)
    for row in rows:
        times = (row.created_at, row.last_used_at, row.revoked_at)
        table.add_row(
            row.id, f"{row.prefix}…", row.owner, " ".join(row.scopes), row.name or "", *map(_shown, times)
        )
    Console(highlight=False, markup=False, width=_NEVER_FOLDED).print(table)


@commands.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="key-…, as `muka keys list` shows it.")],
) -> None:
    """The key opens nothing any more. The objects of its owner stay."""
    from app.domain.errors import NotFoundError
    from app.services import keys

    with open_database() as database:
        try:
            row = keys.revoke(database, key_id)
        except NotFoundError as error:
            give_up(error.detail, status=1)
    typer.echo(f"{row.id} of {row.owner} is revoked, in {keys.REMEMBERED_SECONDS:.0f} seconds at the latest")


def _shown(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
