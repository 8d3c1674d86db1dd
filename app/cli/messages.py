"""What commands say when they cannot go on."""

from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from app.settings import Settings


def give_up(reason: str, status: int = 2) -> NoReturn:
    """Say why, and end with the status."""
    typer.secho(f"muka: {reason}", err=True, fg=typer.colors.RED)
    raise typer.Exit(status)


def usable_settings() -> "Settings":
    """The settings of this process; gives up when one of them makes no sense."""
    from pydantic import ValidationError

    from app.settings import get_settings

    try:
        return get_settings()
    except ValidationError as error:
        faults = [": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in error.errors()]
        give_up("; ".join(["a setting (MUKA_…) is not usable", *faults]))
