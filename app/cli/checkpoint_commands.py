"""`muka resume` and `muka checkpoints`: a job that has ended goes on, or gives what it had."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from app.cli.client_session import URL, JsonOption, KeyOption, UrlOption, notes, results, session

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, amg-….", show_default=False)]


def resume(job_id: JobArgument, url: UrlOption = URL, api_key: KeyOption = None) -> None:
    """Let a job that failed or was cancelled go on from its newest checkpoint."""
    with session(url, api_key) as client:
        job = client.amalgamations.resume(job_id)
        results().print(f"{job.id} is {job.status}; `muka watch {job.id}` follows it")


def checkpoints(
    job_id: JobArgument, as_json: JsonOption = False, url: UrlOption = URL, api_key: KeyOption = None
) -> None:
    """Show what a job's training has saved; each can be downloaded, and be a teacher."""
    with session(url, api_key) as client:
        found = client.amalgamations.checkpoints(job_id)
    if as_json:
        for each in found:
            results().print(each.model_dump_json())
        return
    if not found:
        notes().print(
            "No checkpoints. They are saved while a job trains, and expire some days after its end."
        )
        return
    table = Table(Column("checkpoint", no_wrap=True), "epoch", "loss", "MB", "expires", box=None)
    for each in found:
        expires = f"{each.expires_at.astimezone():%Y-%m-%d %H:%M}" if each.expires_at else "after the job"
        size = f"{each.size_bytes / 1e6:.1f}"
        table.add_row(each.id, f"{each.epoch:.2f}", f"{each.loss:.4g}", size, expires)
    Console(highlight=False, markup=False, width=120).print(table)
