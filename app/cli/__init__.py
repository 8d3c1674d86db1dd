"""The command line: `muka`. Commands load what they need when they run."""

import typer

from app.cli import client_commands

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="muka")
client_commands.register(app)


def main() -> None:
    """The console script."""
    app()
