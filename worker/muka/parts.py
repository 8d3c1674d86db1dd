"""Going through a corpus part by part, so that what is in memory does not grow with it."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from worker.muka.columns import ROWS_AT_ONCE, Columns, filled, spans
from worker.muka.methods.choosing import ChoosingMethod
from worker.muka.methods.interface import Evidence, Method, Supervision, TeacherChoice
from worker.muka.scoring import SHARD_SIZE


def supervise(method: Method, evidence: Evidence, folder: Path | None = None) -> Supervision:
    """`method.supervise`, with columns on the disk of `folder` (None: in memory).

    A method that takes no parts is asked once, and holds in memory what it makes.
    """
    n = len(evidence)
    columns, choices = Columns(n, folder), Columns(n, folder)
    for span in spans(n, ROWS_AT_ONCE if method.takes_parts else n):
        evidence.on_block()
        part = method.supervise(evidence.rows(span))
        columns.put(span.start, part.columns)
        choices.put(span.start, vars(part.choice) if part.choice is not None else {})
    return replace(part, columns=columns, choice=TeacherChoice(**choices) if choices else None)


def choose(method: ChoosingMethod, evidence: Evidence, folder: Path | None = None) -> TeacherChoice:
    """`method.choose`, in the same way."""
    n = len(evidence)
    return TeacherChoice(**filled(n, lambda span: vars(method.choose(evidence.rows(span))), folder))


def answered(
    answer: Callable[[Sequence[str]], Tensor], texts: Sequence[str], folder: Path | None = None
) -> Tensor:
    """What a model answers to all texts, [n, ...], asked shard by shard."""
    return filled(len(texts), lambda span: {"answer": answer(texts[span])}, folder, SHARD_SIZE)["answer"]
