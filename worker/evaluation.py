"""The student, if there is one, its teachers and their combinations on held-out texts with gold labels."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from worker.corpus import LabelledTexts
from worker.muka import Ensemble, Evidence, LabelSpace, TeacherOutputs, calibration_error, evaluate
from worker.muka.evaluate import Evaluation
from worker.muka.label_space import normalise

_MOST_CELLS = 1000
"""Cells of a confusion matrix that a report holds; the largest ones."""


def evaluate_all(
    space: LabelSpace,
    gold: LabelledTexts,
    answers: Sequence[TeacherOutputs],
    student: Tensor | None,
    ensemble: Ensemble,
) -> dict[str, Any]:
    """The same figures of everyone who could have answered.

    Args:
        space: the union of labels.
        gold: n texts.
        answers: what each teacher says about them.
        student: its probabilities [n, |L|]; None where the method trains none.
        ensemble: how the teachers are combined by their certainty (section 4).
    """
    placed = [space.scatter(i, torch.softmax(outputs.logits, dim=-1)) for i, outputs in enumerate(answers)]
    combined = ensemble.supervise(Evidence(space, answers)).columns["q"]
    return {
        "texts": len(gold.texts),
        "unknown_labels": sorted({normalise(name) for name in gold.labels} - set(space.labels)),
        **({} if student is None else {"student": _figures(student, gold, space)}),
        "teachers": [_figures(probabilities, gold, space) for probabilities in placed],
        # N models at inference: weighted by certainty; or whoever says anything with the largest probability.
        "ensemble": _figures(combined, gold, space) | {"method": ensemble.settings()},
        "naive_ensemble": _figures(torch.stack(placed).amax(0), gold, space),
        "right_teacher_chosen": _right_teacher(space, gold, answers, ensemble),
    }


def _figures(probabilities: Tensor, gold: LabelledTexts, space: LabelSpace) -> dict[str, Any]:
    measured = evaluate(probabilities, gold.labels, space.labels)
    return {
        "accuracy": measured.accuracy,
        "macro_f1": measured.macro_f1,
        "calibration_error": calibration_error(probabilities, gold.labels, space.labels),
        "accuracy_by_teacher": _on_each_teacher(probabilities, gold, space),
        **_detail(measured),
    }


def _on_each_teacher(probabilities: Tensor, gold: LabelledTexts, space: LabelSpace) -> list[float | None]:
    """Accuracy on the texts whose gold label a teacher knows; None where there is no such text."""
    names = list(map(normalise, gold.labels))
    right = [
        space.labels[i] == name for i, name in zip(probabilities.argmax(-1).tolist(), names, strict=True)
    ]
    shares = []
    for known in space.teachers:
        mine = [hit for hit, name in zip(right, names, strict=True) if name in known]
        shares.append(sum(mine) / len(mine) if mine else None)
    return shares


def _right_teacher(
    space: LabelSpace, gold: LabelledTexts, answers: Sequence[TeacherOutputs], ensemble: Ensemble
) -> float | None:
    """How often, of the texts that any teacher knows, the most trusted teacher is one of those."""
    chosen = ensemble.choose(Evidence(space, answers)).w.argmax(-1).tolist()
    known = [(i, normalise(name)) for i, name in zip(chosen, gold.labels, strict=True)]
    known = [(i, name) for i, name in known if name in space.labels]
    return sum(name in space.teachers[i] for i, name in known) / len(known) if known else None


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
