"""UHC: unifying heterogeneous classifiers, each within its own labels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from worker.muka.forward import Answer
from worker.muka.losses import kl_to_golden
from worker.muka.methods.interface import Evidence, Method, Objective, Supervision
from worker.muka.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class UHC(Method):
    """For each teacher the student's probabilities within that teacher's labels should be the teacher's."""

    name: ClassVar[str] = "uhc"
    source: ClassVar[str] = "Vongkulbhisal et al. 2019, https://arxiv.org/abs/1904.06062"
    takes_parts: ClassVar[bool] = True

    teacher_temperature: float = parameter(
        5.0,
        "T on the logits of teachers and student; the loss is scaled by its square.",
        minimum=1e-6,
        maximum=100.0,
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """A column `p_i` [n, c_i] for each teacher: its distribution over its distinct kept labels.

        A label that teachers share is compared once with each of them, among that teacher's labels.
        """
        space, T = evidence.label_space, self.teacher_temperature
        p = [space.project(i, torch.softmax(o.logits / T, dim=-1)) for i, o in enumerate(evidence.outputs)]
        places = [space.indices(i) for i in range(len(p))]
        return Supervision({f"p_{i}": p_i for i, p_i in enumerate(p)}, RestrictedKL(places, T))


class RestrictedKL(Objective):
    """T² · mean Σ_i KL(p_i ‖ student restricted to L_i and renormalised) over columns `p_i` [b, c_i].

    Renormalising a part of a softmax is the softmax of that part of the logits.
    """

    def __init__(self, places: Sequence[Tensor], temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        self._names = [f"places_{i}" for i in range(len(places))]
        for name, place in zip(self._names, places, strict=True):
            self.register_buffer(name, place, persistent=False)

    def forward(self, student: Answer, columns: Mapping[str, Tensor]) -> Tensor:
        """The loss of b texts from logits [b, |L|]."""
        T = self.temperature
        parts = [student.logits[:, self.get_buffer(name)] for name in self._names]
        losses = [kl_to_golden(part, columns[f"p_{i}"], T) for i, part in enumerate(parts)]
        return T**2 * torch.stack(losses).sum(0).mean()

    def extra_repr(self) -> str:
        """What the loss depends on beside its columns."""
        return f"places={[self.get_buffer(name).tolist() for name in self._names]}, T={self.temperature}"
