"""The student, if there is one, its teachers and their combinations on held-out texts with gold labels."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Self

import torch
from torch import Tensor

from worker.corpus import LabelledTexts
from worker.muka import Ensemble, Evidence, LabelSpace, TeacherOutputs, calibration_error, evaluate
from worker.muka.columns import spans
from worker.muka.evaluate import Evaluation
from worker.muka.label_space import normalise

_MOST_CELLS = 1000
"""Cells of a confusion matrix that a report holds; the largest ones."""


@dataclass
class _Answers:
    """What one system answers to n texts: all that its figures depend on.

    Attributes:
        guess: The most probable label [n], as its place in the label space.
        confidence: Its probability [n].
    """

    guess: Tensor
    confidence: Tensor

    @classmethod
    def none_yet(cls, n: int) -> Self:
        return cls(torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.float64))

    def put(self, span: slice, probabilities: Tensor) -> None:
        """For some of the texts [b, |L|]."""
        confidence, self.guess[span] = probabilities.max(-1)
        self.confidence[span] = confidence.double()


def evaluate_all(
    space: LabelSpace,
    gold: LabelledTexts,
    answers: Sequence[TeacherOutputs],
    student: Tensor | None,
    ensemble: Ensemble,
    *,
    on_block: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """The same figures of everyone who could have answered.

    Args:
        space: the union of labels.
        gold: n texts.
        answers: what each teacher says about them.
        student: its probabilities [n, |L|]; None where the method trains none.
        ensemble: how the teachers are combined by their certainty (section 4).
        on_block: called every now and then; what it raises ends the evaluation.
    """
    n = len(gold.texts)
    teachers = [_Answers.none_yet(n) for _ in answers]
    combined, naive, pupil = (_Answers.none_yet(n) for _ in range(3))
    chosen = torch.zeros(n, dtype=torch.int64)
    everyone = Evidence(space, answers)
    for span in spans(n):
        on_block()
        evidence = everyone.rows(span)
        largest = torch.zeros(span.stop - span.start, len(space))
        for i, (outputs, each) in enumerate(zip(evidence.outputs, teachers, strict=True)):
            placed = space.scatter(i, torch.softmax(outputs.logits, dim=-1))
            each.put(span, placed)
            largest = torch.maximum(largest, placed)
        naive.put(span, largest)
        choice = ensemble.choose(evidence)
        chosen[span] = choice.w.argmax(-1)
        combined.put(span, ensemble.golden(evidence, choice.w))
        if student is not None:
            pupil.put(span, student[span])
    figures = partial(_figures, names=list(map(normalise, gold.labels)), space=space)
    return {
        "texts": n,
        "unknown_labels": sorted({normalise(name) for name in gold.labels} - set(space.labels)),
        **({} if student is None else {"student": figures(pupil)}),
        "teachers": [figures(each) for each in teachers],
        # N models at inference: weighted by certainty; or whoever says anything with the largest probability.
        "ensemble": figures(combined) | {"method": ensemble.settings()},
        "naive_ensemble": figures(naive),
        "right_teacher_chosen": _right_teacher(space, gold, chosen),
    }


def _figures(answers: _Answers, names: Sequence[str], space: LabelSpace) -> dict[str, Any]:
    measured = evaluate(answers.guess, names, space.labels)
    return {
        "accuracy": measured.accuracy,
        "macro_f1": measured.macro_f1,
        "calibration_error": calibration_error(answers.confidence, answers.guess, names, space.labels),
        "accuracy_by_teacher": [_on_labels(measured, set(known) - {None}) for known in space.teachers],
        **_detail(measured),
    }


def _on_labels(measured: Evaluation, known: AbstractSet[str | None]) -> float | None:
    """Accuracy on the texts whose gold label a teacher knows; None where there is no such text."""
    cells = [(truth == guess, n) for (truth, guess), n in measured.confusion.items() if truth in known]
    return sum(right * n for right, n in cells) / sum(n for _, n in cells) if cells else None


def _right_teacher(space: LabelSpace, gold: LabelledTexts, chosen: Tensor) -> float | None:
    """How often, of the texts that any teacher knows, the most trusted teacher is one of those."""
    labels = space.label2id
    places = torch.tensor([labels.get(normalise(name), -1) for name in gold.labels])
    is_known = places >= 0
    if not is_known.any():
        return None
    return float(space.known[chosen[is_known], places[is_known]].double().mean())


def _detail(measured: Evaluation) -> dict[str, Any]:
    cells = sorted(measured.confusion.items(), key=lambda cell: (-cell[1], cell[0]))
    return {
        "per_label": [asdict(metrics) for metrics in measured.per_label],
        "confusion": [
            {"gold": truth, "predicted": guess, "texts": texts}
            for (truth, guess), texts in cells[:_MOST_CELLS]
        ],
        "confusion_cells": len(cells),
    }
