"""DFA: dual-stage feature amalgamation."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from worker.muka.forward import Answer
from worker.muka.losses import at_least_float32
from worker.muka.methods.features import (
    FeatureMethod,
    drawn,
    standardised_features,
    student_features,
    student_width,
)
from worker.muka.methods.interface import Evidence, GoldenKL, Objective, Supervision
from worker.muka.methods.vanilla_kd import concatenated_softmax


@dataclass(frozen=True, kw_only=True)
class DFA(FeatureMethod):
    """`vanilla_kd`, and the student's features match the auto-encoded features of all teachers together.

    Both stages at once: the auto-encoder learns while the student does.
    """

    name: ClassVar[str] = "dfa"
    source: ClassVar[str] = (
        "Shen et al. 2019, https://arxiv.org/abs/1811.02796, for text as in Li et al. 2022 (MUKI)"
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|], `m` [n] of ones, and `features` [n, Σ width_i]."""
        q = concatenated_softmax(evidence, self.teacher_temperature)
        features = torch.cat(standardised_features(evidence), dim=-1)
        widths = (student_width(evidence), features.shape[-1])
        objective = drawn(evidence, lambda: AmalgamatedFeatures(*widths, settings=self))
        columns = {"q": q, "m": torch.ones(len(q)), "features": features}
        return Supervision(columns, objective, temperature=self.teacher_temperature)


class AmalgamatedFeatures(Objective):
    """T²·KL + weighted mean squares of the matching and of the auto-encoder's reconstruction.

    The code of the auto-encoder is as wide as the student. Matching does not move the encoder: it would make
    codes easy to match instead of informative.

    Args:
        student: Width of the student's features.
        teachers: Width of all teachers' features together.
        settings: Temperature and weights.
    """

    wants_features = True

    def __init__(self, student: int, teachers: int, *, settings: FeatureMethod) -> None:
        super().__init__()
        T = settings.teacher_temperature
        self.distillation = GoldenKL(T, scale=T**2)
        self.encoder = nn.Linear(teachers, student)
        self.decoder = nn.Linear(student, teachers)
        self.adapter = nn.Linear(student, student)
        self._weights = (settings.feature_weight, settings.reconstruction_weight)

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """The loss of b texts; `features` [b, teachers]."""
        code = self.encoder(columns["features"])
        matching = mse_loss(self.adapter(at_least_float32(student_features(student))), code.detach())
        reconstruction = mse_loss(self.decoder(code), columns["features"])
        of_features, of_reconstruction = self._weights
        loss: Tensor = self.distillation(student, columns)
        return loss + of_features * matching + of_reconstruction * reconstruction

    def extra_repr(self) -> str:
        """What the loss depends on beside columns and parameters."""
        return f"weights={self._weights}"
