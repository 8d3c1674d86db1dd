"""`muka submit`: every field of a job as an option; Typer reads them from the signature, hence its length."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from app.cli.client_session import URL, JsonOption, KeyOption, UrlOption, notes, results, session
from app.cli.dry_run import end_dry_run, refuse_upload
from app.cli.live_progress import fetch_what_it_made, job_bar
from app.cli.submission import merged, pairs, read_recipe, uploaded, with_labels
from app.client import InputError, Job, MukaClient

METHOD, TRAINING, TEACHERS = "Method", "Training", "Teachers and texts"


def submit(
    teachers: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TEACHER...",
            help="Hub id (org/name@revision), mdl-… or stu-… id, or a local folder or archive to upload.",
            show_default=False,
        ),
    ] = None,
    *,
    more_teachers: Annotated[
        list[str] | None, typer.Option("--teacher", help="As TEACHER; repeatable.", rich_help_panel=TEACHERS)
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(help="Unlabelled texts: cor-… id, or a local file to upload.", rich_help_panel=TEACHERS),
    ] = None,
    evaluation: Annotated[
        str | None,
        typer.Option(help="Labelled texts to measure on: id or local file.", rich_help_panel=TEACHERS),
    ] = None,
    text_column: Annotated[
        str | None, typer.Option(help="Of local files; by default `text`.", rich_help_panel=TEACHERS)
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Of a local --evaluation file; by default `label`.", rich_help_panel=TEACHERS),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TEACHER:OLD=NEW",
            help="Rename a label; TEACHER is its number, from 0, or its name.",
            rich_help_panel=TEACHERS,
        ),
    ] = None,
    drop: Annotated[
        list[str] | None,
        typer.Option(metavar="TEACHER:LABEL", help="Leave a label out.", rich_help_panel=TEACHERS),
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(help="Where the student starts: teachers/0, or a model.", rich_help_panel=TRAINING),
    ] = None,
    layers: Annotated[
        int | None, typer.Option(help="Keep only the first layers.", rich_help_panel=TRAINING)
    ] = None,
    method: Annotated[
        str | None, typer.Option(help="By default consensus; muka is the paper's.", rich_help_panel=METHOD)
    ] = None,
    mc_samples: Annotated[
        int | None, typer.Option(help="Of muka: K, passes with dropout; 0: none.", rich_help_panel=METHOD)
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="Of the soft teacher weights.", rich_help_panel=METHOD)
    ] = None,
    epochs: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    batch_size: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    learning_rate: Annotated[float | None, typer.Option(rich_help_panel=TRAINING)] = None,
    max_length: Annotated[
        int | None, typer.Option(help="Tokens of a text that are read.", rich_help_panel=TRAINING)
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=TRAINING)] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="JSON file with a body of POST /amalgamations; the options here win over it."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Your own; repeatable.")
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Show the progress until the job has ended.")] = False,
    download_to: Annotated[
        Path | None,
        typer.Option(
            "--download", metavar="DIR", help="Wait, then fetch the student (or texts.jsonl) there."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what the job would be; nothing is uploaded or submitted.")
    ] = False,
    as_json: JsonOption = False,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """Make one student of several teachers and unlabelled texts; --method ensemble labels the texts only."""
    with session(url, api_key) as client:
        base = read_recipe(recipe)
        named = [*(teachers or []), *(more_teachers or [])] or base.get("teachers") or []
        given = {
            "name": name,
            "teachers": with_labels(named, rename or [], drop or []),
            "corpus": corpus,
            "student": {"init_from": init_from, "layers": layers},
            "method": {"name": method, "mc_samples": mc_samples, "temperature": temperature},
            "training": {
                "epochs": epochs,
                "batch_size": batch_size,
                "learning_rate": learning_rate,
                "max_length": max_length,
                "seed": seed,
            },
            "evaluation": {"corpus": evaluation},
            "metadata": pairs(metadata or [], "--metadata"),
        }
        body = merged(base, given)
        if len(body.get("teachers") or []) < 2 or not body.get("corpus"):
            raise InputError("give at least two teachers and --corpus, on the command line or in --recipe")
        columns = {"text_column": text_column, "label_column": label_column}
        console = notes()
        if dry_run:
            planned = client.amalgamations.plan(**uploaded(client, body, columns, refuse_upload))
            end_dry_run(planned, as_json=as_json)
            return
        job = client.amalgamations.submit(uploaded(client, body, columns, console.print))
        _follow_up(client, job, console, wait=wait, download_to=download_to, as_json=as_json)


def _follow_up(
    client: MukaClient, job: Job, console: Console, *, wait: bool, download_to: Path | None, as_json: bool
) -> None:
    if wait or download_to:
        console.print(f"Submitted {job.id}")
        with job_bar(console) as show:
            job.wait(on_progress=show)
        if download_to:
            fetch_what_it_made(client, job, download_to, console)
    if as_json:
        results().print(job.amalgamation.model_dump_json())
    elif job.has_ended and job.amalgamation.student_id:
        results().print(job.amalgamation.student_id)
    elif job.has_ended:
        results().print(job.id)
        console.print(f"Its method trains no student. Every text with its label: muka texts {job.id}")
    else:
        results().print(job.id)
        console.print(f"It is {job.status}. Follow it: muka watch {job.id}")
