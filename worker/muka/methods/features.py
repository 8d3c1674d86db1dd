"""What the methods share that match hidden features as well as answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, TypeVar

import torch
from torch import Tensor

from worker.muka.forward import Answer
from worker.muka.methods.interface import Evidence, Method, Need
from worker.muka.parameters import parameter
from worker.muka.seeds import derive_seed, seeded

T = TypeVar("T")

_CONSTANT = 1e-6


@dataclass(frozen=True, kw_only=True)
class FeatureMethod(Method):
    """Vanilla distillation with two more terms over the pooled features of teachers and student."""

    needs: ClassVar[frozenset[Need]] = frozenset({Need.TEACHER_FEATURES})
    takes_parts: ClassVar[bool] = True

    teacher_temperature: float = parameter(
        5.0,
        "T on the logits of teachers and student; the loss is scaled by its square.",
        minimum=1e-6,
        maximum=100.0,
    )
    feature_weight: float = parameter(
        1.0, "Of the term that brings the student's features to the teachers'.", minimum=0.0, maximum=1000.0
    )
    reconstruction_weight: float = parameter(
        1.0, "Of the term that rebuilds the teachers' features.", minimum=0.0, maximum=1000.0
    )


def standardised_features(evidence: Evidence) -> list[Tensor]:
    """Each teacher's pooled features [n, width_i] with mean 0 and variance 1 over the corpus.

    So no teacher counts for more because its features are larger; a feature that never varies is 0.

    Raises:
        ValueError: The evidence has no features.
    """
    moments = evidence.whole.feature_moments
    return [
        (outputs.features - mean) / deviation.clamp_min(_CONSTANT)
        for outputs, (mean, deviation) in zip(evidence.outputs, moments, strict=True)
        if outputs.features is not None
    ]


def student_width(evidence: Evidence) -> int:
    """Width of the student's pooled features. Raises ValueError where the evidence has none."""
    if evidence.student_width is None:
        raise ValueError("the evidence has no student_width; allowed: the width of the student's features")
    return evidence.student_width


def student_features(student: Answer) -> Tensor:
    """[b, width] of the student. Raises ValueError where it was run without."""
    if student.features is None:
        raise ValueError("the student's answer has no features; allowed: a forward pass with features=True")
    return student.features


def drawn(evidence: Evidence, make: Callable[[], T]) -> T:
    """Modules with first weights drawn from the training's seed."""
    with seeded(derive_seed(evidence.seed, "adapters"), torch.device("cpu")):
        return make()
