"""What a job would take: passes from the recipe, memory from sizes, time from jobs that have finished."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from app.domain.recipe import Recipe
from app.ingestion.model_facts import ModelFacts

BYTES_PER_PARAMETER = 4
_TRAINED_COPIES = 4
"""Weights, gradients and the two moments of AdamW."""

NO_TEXTS = "the number of texts is not known before they are read"
NO_JOBS = "no job of yours has finished on this service yet, so nothing is known of its speed"


@dataclass(frozen=True)
class Memory:
    """Bytes of weights and optimizer; activations come on top, and depend on batch and length."""

    teachers_bytes: int | None
    """Of all teachers, which may be loaded one after the other."""
    largest_teacher_bytes: int | None
    training_bytes: int | None
    """The model that the student starts from, with gradients and optimizer; fewer layers need less.
    0 where none is trained."""


@dataclass(frozen=True)
class Time:
    """Seconds, or why there is no estimate."""

    seconds: float | None
    from_jobs: int
    """Finished jobs from whose speed this was taken; their models may have other sizes."""
    reason: str | None


@dataclass(frozen=True)
class Estimates:
    """Upper bounds."""

    scoring_passes: int | None
    """Texts through teachers, without those that are stored already; an adaptive method may take fewer."""
    training_texts: int | None
    """Texts through the student, over all epochs; 0 where the method trains none."""
    memory: Memory
    time: Time


def estimate(
    recipe: Recipe,
    *,
    texts: int | None,
    teachers: Sequence[ModelFacts],
    parameters: Sequence[int | None],
    start_parameters: int | None,
    reports: Sequence[Mapping[str, Any]],
    passes: int | None = None,
) -> Estimates:
    """All of it.

    Args:
        recipe: the request.
        texts: of the corpus, when known.
        teachers: facts of each.
        parameters: of each teacher.
        start_parameters: of the model that the student starts from.
        reports: of finished jobs.
        passes: texts that would still go through the teachers, where stored outputs were looked for.
    """
    samples = recipe.method.passes
    per_text = sum(1 if facts.can_be_sampled is False else 1 + samples for facts in teachers)
    if passes is None and texts is not None:
        passes = per_text * texts
    trains = recipe.method.trains_student
    trained = None if texts is None else trains * recipe.training.epochs * texts
    memory = _memory(parameters, start_parameters if trains else 0)
    return Estimates(passes, trained, memory, _time(passes, trained, reports))


def _memory(parameters: Sequence[int | None], start: int | None) -> Memory:
    known = [count * BYTES_PER_PARAMETER for count in parameters if count is not None]
    are_all_known = len(known) == len(parameters) > 0
    return Memory(
        teachers_bytes=sum(known) if are_all_known else None,
        largest_teacher_bytes=max(known) if are_all_known else None,
        training_bytes=None if start is None else start * BYTES_PER_PARAMETER * _TRAINED_COPIES,
    )


def _time(passes: int | None, trained: int | None, reports: Sequence[Mapping[str, Any]]) -> Time:
    speeds = [speed for report in reports if (speed := _speed(report, trains=trained != 0))]
    if passes is None or trained is None:
        return Time(None, len(speeds), NO_TEXTS)
    if not speeds:
        return Time(None, 0, NO_JOBS)
    scoring, training, rest = (median(column) for column in zip(*speeds, strict=True))
    return Time(round(passes * scoring + trained * training + rest, 1), len(speeds), None)


def _speed(report: Mapping[str, Any], *, trains: bool) -> tuple[float, float, float] | None:
    """Seconds a pass, a trained text, and for all that is neither; None where it does not tell what counts.

    Jobs that trained and jobs that did not tell alike how fast the teachers are.
    """
    throughput, seconds = report.get("throughput") or {}, report.get("seconds") or {}
    scoring = throughput.get("scoring_passes_per_second")
    training = throughput.get("training_texts_per_second")
    if not scoring or (trains and not training):  # all was reused, or the report is of an older version
        return None
    rest = sum(spent for stage, spent in seconds.items() if stage not in {"scoring", "training"})
    return 1 / scoring, 1 / training if training else 0.0, rest
