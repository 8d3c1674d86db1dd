"""`muka watch`, `download`, `list`, `cancel`, and all client commands together for `muka`."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from app.cli.checkpoint_commands import JobArgument, checkpoints, resume
from app.cli.client_session import URL, JsonOption, KeyOption, UrlOption, notes, results, session
from app.cli.live_progress import doing, fetch_student, fetch_what_it_made, job_bar
from app.cli.predict_command import predict
from app.cli.report_command import report, texts
from app.cli.submit_command import submit
from app.client import ConnectionFailedError, Event, Job
from app.domain.identifiers import Prefix, has_prefix


def register(app: typer.Typer) -> None:
    """Hang the commands into `muka`."""
    app.command()(submit)
    app.command()(watch)
    app.command()(download)
    app.command()(predict)
    app.command()(report)
    app.command()(texts)
    app.command("list")(list_jobs)
    app.command()(cancel)
    app.command()(resume)
    app.command()(checkpoints)


def watch(
    job_id: JobArgument, as_json: JsonOption = False, url: UrlOption = URL, api_key: KeyOption = None
) -> None:
    """Follow a job: its events and its progress. Ends with 0 succeeded, 1 failed, 2 cancelled."""
    with session(url, api_key) as client:
        console = notes()
        job = client.amalgamations.get(job_id)
        with job_bar(console) as show:
            tell, show_now = _event_teller(console, as_json=as_json), _sparing(job, show)
            for event in job.stream(on_idle=show_now):
                tell(event)
                show_now()
            job.refresh().wait(on_progress=show)


def download(
    what: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT_OR_JOB", help="stu-…, stu-…@step-200 or amg-… id.", show_default=False
        ),
    ],
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="By default a new folder with the student's id.")
    ] = None,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """Fetch a student; a download that was cut off goes on, and every file is checked.

    Of a job whose method trains no student: every text with its label, as texts.jsonl.
    """
    with session(url, api_key) as client:
        if has_prefix(what, Prefix.AMALGAMATION):
            job = client.amalgamations.get(what)
            own = Path(job.amalgamation.student_id or job.id)
            fetch_what_it_made(client, job, folder or own, notes())
        else:
            fetch_student(client, what, folder or Path(what), notes())


def list_jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs in this status.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, from the newest.")] = 20,
    as_json: JsonOption = False,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """Show the newest jobs."""
    with session(url, api_key) as client:
        jobs = list(islice(client.amalgamations.list(status=status, page_size=min(limit, 100)), limit))
        if as_json:
            for job in jobs:
                results().print(job.amalgamation.model_dump_json())
        elif jobs:
            width = None if sys.stdout.isatty() else 160  # a pipe has no width that would cut names
            Console(highlight=False, markup=False, width=width).print(_table(jobs))
        else:
            notes().print("No jobs yet. `muka submit --help` shows how to make one.")


def cancel(
    job_id: JobArgument,
    keep_best: Annotated[
        bool, typer.Option("--keep-best", help="What is trained so far becomes the job's student.")
    ] = False,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """End a job: a queued one at once, a running one as soon as its worker lets go."""
    with session(url, api_key) as client:
        job = client.amalgamations.cancel(job_id, keep_best=keep_best)
        results().print(f"{job.id} is {job.status}")


def _sparing(job: Job, show: Callable[[Job], None]) -> Callable[[], None]:
    """Shows the job as the service has it now, once a second at most."""
    next_look = 0.0

    def show_now() -> None:
        nonlocal next_look
        if time.monotonic() < next_look or job.has_ended:
            return
        next_look = time.monotonic() + 1
        with suppress(ConnectionFailedError):  # the stream knows how to wait for the service
            show(job.refresh())

    return show_now


def _event_teller(screen: Console, *, as_json: bool) -> Callable[[Event], None]:
    """Prints an event; people are spared the single metric points."""
    # On a terminal both streams are one screen, and the bar's own console keeps out of its way.
    console = screen if screen.is_terminal and sys.stdout.isatty() and not as_json else results()

    def tell(event: Event) -> None:
        if as_json:
            console.print(event.model_dump_json())
        elif event.type != "metric":
            at = f"{event.created_at.astimezone():%H:%M:%S}  " if event.created_at else ""
            console.print(f"{at}{event.message}", markup=False)

    return tell


def _table(jobs: list[Job]) -> Table:
    table = Table(Column("job", no_wrap=True, min_width=36), "name", "status", "progress", "made", box=None)
    for job in jobs:
        made = job.amalgamation.created_at
        table.add_row(
            job.id,
            job.name or "",
            doing(job),
            f"{100 * (job.progress.fraction or 0):.0f} %",
            f"{made.astimezone():%Y-%m-%d %H:%M}" if made else "",
        )
    return table
