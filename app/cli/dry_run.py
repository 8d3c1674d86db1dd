"""`muka submit --dry-run`: a plan for people, or as JSON."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import typer

from app.cli.client_session import ExitCode, results
from app.client import InputError, Plan

MIB = 1 << 20


def refuse_upload(what: str) -> None:
    """In place of telling what is uploaded.

    Raises:
        InputError: a dry run changes nothing on the service.
    """
    raise InputError(
        f"{what}: a dry run uploads nothing. Upload it with `POST /models` or `POST /corpora` (in Python "
        "client.models.upload, client.corpora.upload) and give its id, or leave out --dry-run"
    )


def end_dry_run(plan: Plan, *, as_json: bool) -> None:
    """Print the plan.

    Raises:
        typer.Exit: with 3, as submitting would end, when the job would be refused.
    """
    for line in [plan.model_dump_json()] if as_json else _lines(plan):
        results().print(line)
    if not plan.would_be_accepted:
        raise typer.Exit(ExitCode.REFUSED)


def _lines(plan: Plan) -> Iterator[str]:
    for teacher in plan.teachers:
        yield _teacher(teacher)
    union = plan.labels.get("union", [])
    yield f"labels    {len(union)}: {', '.join(union[:20])}{', …' if len(union) > 20 else ''}"
    for name, teachers in plan.labels.get("shared", {}).items():
        yield f"          {name} is shared by the teachers {', '.join(map(str, teachers))}"
    for group in plan.labels.get("similar", []):
        yield f"          {' and '.join(group)} stay different; --rename one of them if they mean the same"
    yield _texts(plan.corpus)
    yield from _estimates(plan.estimates)
    for problem in plan.problems:
        yield f"problem   {problem.pointer}: {problem.detail}"
    yield "It would be accepted." if plan.would_be_accepted else "It would be refused."


def _teacher(teacher: dict[str, Any]) -> str:
    facts = teacher.get("facts") or {}
    known = [
        teacher.get("architecture"),
        _counted(teacher.get("parameters"), "parameters"),
        _counted(facts.get("layers"), "layers"),
        "no dropout, so it cannot be sampled" if facts.get("can_be_sampled") is False else None,
        _stored(teacher.get("stored")),
    ]
    return f"teacher   {teacher['reference']}  {', '.join(filter(None, known)) or 'not found'}"


def _stored(stored: dict[str, Any] | None) -> str | None:
    if not stored or not stored["shards_stored"]:
        return None
    return f"{stored['shards_stored']} of {stored['shards']} shards answered by earlier jobs"


def _texts(corpus: dict[str, Any] | None) -> str:
    if corpus is None:
        return "texts     not found"
    share = corpus.get("truncated_share")
    known = [
        _counted(corpus.get("texts"), "texts"),
        _counted(corpus.get("tokens"), "tokens (estimated)"),
        f"{share:.1%} truncated (estimated)" if share is not None else None,
    ]
    return f"texts     {', '.join(filter(None, known)) or 'known when the job is submitted'}"


def _estimates(estimates: dict[str, Any]) -> Iterator[str]:
    if passes := _counted(estimates.get("scoring_passes"), "texts through teachers"):
        trained = estimates.get("training_texts")
        student = "no student is trained" if trained == 0 else f"{trained or 0:,} through the student"
        yield f"passes    {passes}, {student}"
    memory = (estimates.get("memory") or {}).get("training_bytes")
    if memory:
        yield f"memory    {memory / MIB:,.0f} MiB to train, besides activations"
    time = estimates.get("time") or {}
    if time.get("seconds") is not None:
        about = timedelta(seconds=round(time["seconds"]))
        yield f"time      about {about}, at the speed of {time['from_jobs']} finished jobs"
    elif time.get("reason"):
        yield f"time      not estimated: {time['reason']}"


def _counted(number: int | None, what: str) -> str | None:
    return None if number is None else f"{number:,} {what}"
