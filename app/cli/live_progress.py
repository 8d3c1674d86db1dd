"""Jobs and downloads as they go on: bars on a terminal, a line for every change elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from app.client import DownloadProgress, Job, MukaClient

TEXTS = "texts.jsonl"
"""What is downloaded of a job that makes no student."""


@contextmanager
def job_bar(console: Console) -> Iterator[Callable[[Job], None]]:
    """Shows a job: call what it yields with the job, whenever there is news (`Job.wait(on_progress=…)`)."""
    if not console.is_terminal:
        yield _job_lines(console)
        return
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[eta]}"),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("submitted", total=1.0, eta="")

        def show(job: Job) -> None:
            done = 1.0 if job.status == "succeeded" else job.progress.fraction or 0.0
            progress.update(task, completed=done, description=doing(job), eta=eta(job))

        yield show


@contextmanager
def download_bar(console: Console, title: str) -> Iterator[Callable[[DownloadProgress], None]]:
    """Shows a download; on no terminal it is silent."""
    columns = (
        TextColumn("{task.description:<22}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(title, total=None)

        def show(now: DownloadProgress) -> None:
            progress.update(task, completed=now.received_bytes, total=now.total_bytes)

        yield show


def fetch_student(client: MukaClient, student_id: str, folder: Path, console: Console) -> None:
    """Download with a bar, and say where it is."""
    with download_bar(console, "download") as show:
        client.students.download(student_id, folder, on_progress=show)
    console.print(f"The student is in {folder}")


def fetch_what_it_made(client: MukaClient, job: Job, folder: Path, console: Console) -> None:
    """The student of a job; where its method trains none, every text with its label."""
    if job.status == "succeeded" and job.amalgamation.student_id is None:
        _fetch_texts(client, job, folder, console)
    else:
        fetch_student(client, job.student().id, folder, console)


def _fetch_texts(client: MukaClient, job: Job, folder: Path, console: Console) -> None:
    """The file is whole, or not there."""
    folder.mkdir(parents=True, exist_ok=True)
    path, part = folder / TEXTS, folder / f"{TEXTS}.part"
    with part.open("w", encoding="utf-8", newline="\n") as file:
        for row in client.amalgamations.texts(job.id):
            file.write(row.model_dump_json() + "\n")
    part.replace(path)
    console.print(f"What the teachers say together about every text is in {path}")


def doing(job: Job) -> str:
    """What the job does now, in a word or two."""
    if job.status == "running":
        return job.stage or "running"
    if job.status == "queued" and job.amalgamation.queue_position:
        return f"queued, {job.amalgamation.queue_position} before it"
    return job.status


def eta(job: Job) -> str:
    """The time left, as the service estimates it."""
    seconds = job.progress.eta_seconds
    if seconds is None or job.has_ended:
        return ""
    return f"{timedelta(seconds=round(seconds))} left"


def _job_lines(console: Console) -> Callable[[Job], None]:
    shown = ""

    def show(job: Job) -> None:
        nonlocal shown
        percent = int(10 * (job.progress.fraction or 0)) * 10
        line = doing(job) if job.status != "running" else f"{doing(job)} {percent} %"
        if line != shown:
            shown = line
            console.print(f"  {line}" + (f" ({eta(job)})" if eta(job) else ""), markup=False)

    return show
