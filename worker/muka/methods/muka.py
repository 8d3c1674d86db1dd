"""MUKA: the model-uncertainty-aware choice of teachers."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch

from worker.muka.methods.choosing import ChoosingMethod
from worker.muka.methods.interface import Evidence, GoldenKL, Supervision
from worker.muka.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class Muka(ChoosingMethod):
    """Golden supervision from the most certain teachers, each text weighted by the margin of the best."""

    name: ClassVar[str] = "muka"
    source: ClassVar[str] = "Li et al. 2021, https://arxiv.org/abs/2112.07327"
    takes_parts: ClassVar[bool] = True

    reweight: Literal["margin", "none"] = parameter(
        "margin",
        "`margin` weights each text by the best minus the second-best score.",
        choices=("margin", "none"),
    )
    head: Literal["random", "discriminant"] = parameter(
        "random",
        "How the student's head starts: `random` as in the paper, or as the `discriminant` of its features.",
        choices=("random", "discriminant"),
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|] and `m` [n] (ones without margin re-weighting)."""
        choice, T = self.choose(evidence), self.teacher_temperature
        m = choice.m if self.reweight == "margin" else torch.ones_like(choice.m)
        columns = {"q": self.golden(evidence, choice.w), "m": m}
        return Supervision(columns, GoldenKL(T), choice, T, self.head)
