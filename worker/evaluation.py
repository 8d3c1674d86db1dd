"""Student, teachers and their naive combination on held-out texts with gold labels."""

from collections.abc import Sequence
from typing import Any

import torch

from worker.corpus import LabelledTexts
from worker.muka import LabelSpace, TeacherOutputs, evaluate


def evaluate_all(
    space: LabelSpace,
    gold: LabelledTexts,
    answers: Sequence[TeacherOutputs],
    student: torch.Tensor,
) -> dict[str, Any]:
    """Accuracy and macro-F1 over all gold labels, and each label's own for the student.

    Args:
        space: the union of labels.
        gold: n texts.
        answers: what each teacher says about them.
        student: its probabilities [n, |L|].
    """
    placed = [
        space.scatter(index, torch.softmax(outputs.logits, dim=-1)) for index, outputs in enumerate(answers)
    ]
    measured = evaluate(student, gold.labels, space.labels)
    return {
        "texts": len(gold.texts),
        "unknown_labels": list(measured.unknown_labels),
        "student": _scores(student, gold, space),
        "teachers": [_scores(probabilities, gold, space) for probabilities in placed],
        # Whoever says anything with the largest probability wins: N models at inference.
        "naive_ensemble": _scores(torch.stack(placed).amax(0), gold, space),
        "per_label": [
            {
                "label": metrics.label,
                "support": metrics.support,
                "precision": metrics.precision,
                "recall": metrics.recall,
                "f1": metrics.f1,
            }
            for metrics in measured.per_label
        ],
    }


def _scores(probabilities: torch.Tensor, gold: LabelledTexts, space: LabelSpace) -> dict[str, float]:
    measured = evaluate(probabilities, gold.labels, space.labels)
    return {"accuracy": measured.accuracy, "macro_f1": measured.macro_f1}
