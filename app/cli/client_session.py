"""What all client commands share: where the service is, how results are shown, how errors end."""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Annotated

import typer
from rich.console import Console

from app.client import DEFAULT_URL, JobCancelledError, JobFailedError, MukaClient, MukaClientError

UrlOption = Annotated[
    str, typer.Option("--url", envvar="MUKA_URL", help="Where the service is.", rich_help_panel="Service")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        "--api-key",
        envvar="MUKA_API_KEY",
        help="Your key, where the service asks for one.",
        rich_help_panel="Service",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, for programs.")]

URL = DEFAULT_URL


class ExitCode(IntEnum):
    """How a client command ends."""

    SUCCEEDED = 0
    FAILED = 1
    """The job has failed."""
    CANCELLED = 2
    """The job was cancelled. (Wrong usage of the command line has the same code.)"""
    REFUSED = 3
    """No service, or it refused; or a file that cannot be read or written."""
    INTERRUPTED = 130
    """Ctrl-C. The job goes on."""


def notes() -> Console:
    """For people: stderr, so that stdout holds results only."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def results() -> Console:
    """For people and programs: stdout, as it is."""
    return Console(highlight=False, soft_wrap=True, markup=False)


@contextmanager
def session(url: str, api_key: str | None) -> Iterator[MukaClient]:
    """A client; every error becomes a message that says what to do next, and an exit code."""
    with _errors_told(), MukaClient(url, api_key) as client:
        yield client


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except JobCancelledError as error:
        raise _end(ExitCode.CANCELLED, str(error)) from error
    except JobFailedError as error:
        raise _end(ExitCode.FAILED, str(error)) from error
    except MukaClientError as error:
        raise _end(ExitCode.REFUSED, str(error)) from error
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise _end(ExitCode.REFUSED, f"{place}{error.strerror or error}") from error
    except KeyboardInterrupt as error:
        raise _end(ExitCode.INTERRUPTED, "Interrupted. Jobs go on: `muka list` shows them.") from error


def _end(code: ExitCode, message: str) -> typer.Exit:
    notes().print(message, style="red" if code != ExitCode.INTERRUPTED else None, markup=False)
    return typer.Exit(code)
