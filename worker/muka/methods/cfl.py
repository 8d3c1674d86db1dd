"""CFL: common feature learning."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss, normalize

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

_VARIANCES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""σ² of the kernels. Independent directions are at a squared distance of about 2."""


@dataclass(frozen=True, kw_only=True)
class CFL(FeatureMethod):
    """`vanilla_kd`, and student and teachers have alike distributions in a common feature space."""

    name: ClassVar[str] = "cfl"
    source: ClassVar[str] = "Luo et al. 2019, https://arxiv.org/abs/1906.10546"

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|], `m` [n] of ones, and for each teacher `features_i` [n, width_i]."""
        q = concatenated_softmax(evidence, self.teacher_temperature)
        features = standardised_features(evidence)
        width, widths = student_width(evidence), [each.shape[-1] for each in features]
        objective = drawn(evidence, lambda: CommonFeatures(width, widths, settings=self))
        columns = {"q": q, "m": torch.ones(len(q))}
        columns |= {f"features_{i}": each for i, each in enumerate(features)}
        return Supervision(columns, objective, temperature=self.teacher_temperature)


class CommonFeatures(Objective):
    """T²·KL + weighted Σ_i MMD²(student, teacher i) + weighted Σ_i mean squares of the reconstruction i.

    Each network has an adapter of its own into a space a quarter as wide as the student; one extractor, the
    same for all, leads from there to the common features; a decoder for each teacher leads back.

    Args:
        student: Width of the student's features.
        teachers: Width of each teacher's features.
        settings: Temperature and weights.
    """

    wants_features = True

    def __init__(self, student: int, teachers: Sequence[int], *, settings: FeatureMethod) -> None:
        super().__init__()
        T, common = settings.teacher_temperature, max(1, student // 4)
        self.distillation = GoldenKL(T, scale=T**2)
        self.student_adapter = _adapter(student, common)
        self.teacher_adapters = nn.ModuleList(_adapter(width, common) for width in teachers)
        self.extractor = nn.Sequential(nn.Linear(common, common), nn.ReLU(), nn.Linear(common, common))
        self.decoders = nn.ModuleList(_decoder(common, width) for width in teachers)
        self._weights = (settings.feature_weight, settings.reconstruction_weight)

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """The loss of b texts; `features_i` [b, width_i]. MMD compares the texts of one micro-batch."""
        ours = self.extractor(self.student_adapter(at_least_float32(student_features(student))))
        loss: Tensor = self.distillation(student, columns)
        of_features, of_reconstruction = self._weights
        for i, (adapter, decoder) in enumerate(zip(self.teacher_adapters, self.decoders, strict=True)):
            features = columns[f"features_{i}"]
            theirs = self.extractor(adapter(features))
            loss = loss + of_features * squared_mmd(ours, theirs)
            loss = loss + of_reconstruction * mse_loss(decoder(theirs), features)
        return loss

    def extra_repr(self) -> str:
        """What the loss depends on beside columns and parameters."""
        return f"weights={self._weights}"


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """Squared maximum mean discrepancy of two samples, by their directions (Gretton et al. 2012).

    The biased estimate mean k(x,x') + mean k(y,y') - 2 mean k(x,y), with the sum of five Gaussian kernels,
    so that a sample of one is no special case.

    Args:
        x: [b, d].
        y: [c, d].

    Returns:
        A scalar >= 0, up to rounding; 0 where the samples are the same.
    """
    x, y = normalize(x, dim=-1), normalize(y, dim=-1)
    return _kernel(x, x).mean() + _kernel(y, y).mean() - 2 * _kernel(x, y).mean()


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """The sum of Gaussian kernels of all pairs: [b, c]."""
    squares = x.square().sum(-1)[:, None] + y.square().sum(-1)[None] - 2 * x @ y.T
    return torch.stack([torch.exp(-squares / (2 * variance)) for variance in _VARIANCES]).sum(0)


def _adapter(width: int, common: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, common), nn.ReLU())


def _decoder(common: int, width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(common, width), nn.ReLU(), nn.Linear(width, width))
