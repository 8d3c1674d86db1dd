"""`muka sweep`."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.messages import give_up, usable_settings

if TYPE_CHECKING:
    from app.services.leftovers import Leftover


def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
) -> None:
    """Remove what nobody needs: files that crashes left, and what has expired. The service does so too."""
    from sqlalchemy.exc import OperationalError

    from app.persistence import schema_state
    from app.services.backend import Backend
    from app.services.leftovers import find_all
    from app.services.sweeper import sweep as remove_all
    from app.storage import StoreError

    settings = usable_settings()
    backend = Backend.from_settings(settings)
    try:
        if not schema_state.state(settings.resolved_database_url()).is_current:
            give_up("the database's schema is not this version's: run `muka migrate`", status=1)
        found = [_told(each) for each in (find_all if dry_run else remove_all)(backend)]
    except OperationalError as error:
        give_up(f"the database does not answer: {error.orig}", status=1)
    except StoreError as error:
        give_up(str(error), status=1)
    finally:
        backend.close()
    what = "would be removed" if dry_run else "removed"
    typer.echo(f"{len(found)} {what}, {_size(sum(found))} in all")


def _told(leftover: "Leftover") -> int:
    """Say it at once, and answer its size."""
    typer.echo(f"{_size(leftover.size_bytes):>10}  {leftover.name}  ({leftover.reason})")
    return leftover.size_bytes


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
