"""`muka report` and `muka texts`: what a job found out, for people and as JSON."""

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from app.cli.client_session import URL, JsonOption, KeyOption, UrlOption, results, session
from app.client import MukaClient

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="Id of the job, amg-….", show_default=False)]

_SHOWN_ORPHANS = 10
_TEXT_CHARACTERS = 100


def report(
    job_id: JobArgument, as_json: JsonOption = False, url: UrlOption = URL, api_key: KeyOption = None
) -> None:
    """Show what a job found out: teachers, figures on held-out texts, texts of which no teacher is sure."""
    with session(url, api_key) as client:
        told = client.amalgamations.report(job_id)
        if as_json:
            results().print(json.dumps(told, ensure_ascii=False))
            return
        width = None if sys.stdout.isatty() else 160  # a pipe has no width that would cut names
        screen = Console(highlight=False, markup=False, width=width)
        screen.print(_teachers(told))
        if evaluation := told.get("evaluation"):
            screen.print()
            screen.print(_figures(told, evaluation))
        screen.print()
        for line in _lines(client, job_id, told):
            screen.print(line, soft_wrap=True)


def texts(
    job_id: JobArgument,
    orphans: Annotated[
        bool, typer.Option("--orphans", help="Only texts of which no teacher is sure.")
    ] = False,
    url: UrlOption = URL,
    api_key: KeyOption = None,
) -> None:
    """Print every text of the job's corpus with its figures, one JSON object a line."""
    with session(url, api_key) as client:
        for row in client.amalgamations.texts(job_id, orphans=orphans):
            sys.stdout.write(row.model_dump_json() + "\n")


def _teachers(told: Mapping[str, Any]) -> Table:
    choice = told.get("choice", {})
    chosen_for = "chosen for" if choice.get("decides", True) else "most certain on"
    columns = ("labels", "passes a text", chosen_for, "mean weight", "mean certainty")
    table = Table("teacher", *(Column(name, justify="right") for name in columns), box=None)
    for index, teacher in enumerate(told.get("teachers", [])):
        table.add_row(
            str(teacher.get("name")),
            str(len([label for label in teacher.get("labels", []) if label is not None])),
            _number(teacher.get("passes_per_text"), ".1f"),
            *(_number(_at(choice.get(key), index), form) for key, form in _CHOICE.items()),
        )
    return table


_CHOICE = {"chosen_share": ".1%", "mean_weight": ".2f", "mean_score": ".2f"}
_FIGURES = {"accuracy": ".1%", "macro_f1": ".3f", "calibration_error": ".3f"}


def _figures(told: Mapping[str, Any], evaluation: Mapping[str, Any]) -> Table:
    columns = (Column(name, justify="right") for name in ("accuracy", "macro-F1", "calibration error"))
    table = Table(f"on {evaluation.get('texts')} held-out texts", *columns, box=None)
    names = [teacher.get("name") for teacher in told.get("teachers", [])]
    rows = [
        ("the student", evaluation.get("student")),
        ("all teachers, by certainty", evaluation.get("ensemble")),
        ("all teachers, by largest probability", evaluation.get("naive_ensemble")),
        *zip(names, evaluation.get("teachers", []), strict=False),
    ]
    for name, figures in rows:
        if figures:
            table.add_row(str(name), *(_number(figures.get(key), form) for key, form in _FIGURES.items()))
    return table


def _lines(client: MukaClient, job_id: str, told: Mapping[str, Any]) -> Iterator[str]:
    if agreement := told.get("agreement"):
        yield f"The student agrees with what it was taught on {agreement['top1']:.1%} of the corpus."
    found = told.get("orphans", {})
    if not found.get("texts"):
        yield "Some teacher is sure of every text."
        return
    bound = found["certainty_below"]
    sure = f"certainty by entropy below {bound}"
    yield f"No teacher is sure ({sure}) of {found['texts']:,} texts ({found['share']:.1%})."
    yield "When they are alike, a label is missing:"
    for row in islice(client.amalgamations.texts(job_id, orphans=True), _SHOWN_ORPHANS):
        text = " ".join((row.text or "(the corpus is gone)").split())[:_TEXT_CHARACTERS]
        yield f"  {row.row:>8}  {row.label}: {text}"
    if found["texts"] > _SHOWN_ORPHANS:
        yield f"  … `muka texts {job_id} --orphans` has all"


def _at(values: list[float] | None, index: int) -> float | None:
    return values[index] if values and index < len(values) else None


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
