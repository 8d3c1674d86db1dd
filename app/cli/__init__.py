"""`muka`: the command line. What a command needs is imported when it runs, so that `--help` is quick."""

import typer


def application() -> typer.Typer:
    """All commands."""
    from app.cli import client_commands, keys
    from app.cli.migrate import migrate
    from app.cli.serve import serve
    from app.cli.sweep import sweep
    from app.cli.worker import worker
    from app.cli.workers import workers

    muka = typer.Typer(
        name="muka",
        help="Make one text classifier out of several fine-tuned ones, without labelled data.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    for command in (serve, worker, workers, migrate, sweep):
        muka.command()(command)
    muka.add_typer(keys.commands)
    client_commands.register(muka)
    return muka


def main() -> None:
    """Run the command that the arguments name."""
    application()()
