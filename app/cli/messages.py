"""What commands say when they cannot go on."""

from typing import NoReturn

import typer


def give_up(reason: str, status: int = 2) -> NoReturn:
    """Say why, and end with the status."""
    typer.secho(f"muka: {reason}", err=True, fg=typer.colors.RED)
    raise typer.Exit(status)
