"""The teachers together, without a student: what every student is measured against (section 7)."""

from dataclasses import dataclass, fields
from typing import ClassVar

import torch

from worker.muka.methods.choosing import ChoosingMethod
from worker.muka.methods.interface import Evidence, Method, Supervision


@dataclass(frozen=True, kw_only=True)
class Ensemble(ChoosingMethod):
    """All teachers combined by their certainty for every text at inference; trains no student."""

    name: ClassVar[str] = "ensemble"
    source: ClassVar[str] = "Li et al. 2021, https://arxiv.org/abs/2112.07327"
    trains_student: ClassVar[bool] = False
    takes_parts: ClassVar[bool] = True

    @classmethod
    def like(cls, method: Method) -> "Ensemble":
        """With the settings by which `method` chooses teachers; by one pass where it chooses none.

        So it never asks a teacher anything that the method has not asked already.
        """
        if not isinstance(method, ChoosingMethod):
            return cls(mc_samples=0)
        return cls(**{each.name: getattr(method, each.name) for each in fields(cls)})

    def supervise(self, evidence: Evidence) -> Supervision:
        """The answer itself as column `q` [n, |L|], and `m` [n] of ones."""
        choice = self.choose(evidence)
        columns = {"q": self.golden(evidence, choice.w), "m": torch.ones_like(choice.m)}
        return Supervision(columns, choice=choice, temperature=self.teacher_temperature)
