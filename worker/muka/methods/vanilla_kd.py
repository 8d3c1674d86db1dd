"""Plain knowledge distillation from the teachers' concatenated logits."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from worker.muka.methods.interface import Evidence, GoldenKL, Method, Supervision
from worker.muka.parameters import parameter


@dataclass(frozen=True, kw_only=True)
class VanillaKD(Method):
    """One softmax over the concatenated logits of all teachers, as if they were one."""

    name: ClassVar[str] = "vanilla_kd"
    source: ClassVar[str] = "Hinton et al. 2015, https://arxiv.org/abs/1503.02531"
    takes_parts: ClassVar[bool] = True

    teacher_temperature: float = parameter(
        5.0,
        "T on the logits of teachers and student; the loss is scaled by its square.",
        minimum=1e-6,
        maximum=100.0,
    )

    def supervise(self, evidence: Evidence) -> Supervision:
        """Columns `q` [n, |L|] and `m` [n] of ones; the loss is T²·KL."""
        T = self.teacher_temperature
        q = concatenated_softmax(evidence, T)
        columns = {"q": q, "m": torch.ones(len(q))}
        return Supervision(columns, GoldenKL(T, scale=T**2), temperature=T)


def concatenated_softmax(evidence: Evidence, temperature: float) -> Tensor:
    """One softmax over the logits of all kept classes of all teachers at once.

    A dropped class takes no part. A label that several classes share has the sum of their probabilities,
    as everywhere (section 4); so teachers with the same labels vote with exp(z/T).

    Returns:
        q [n, |L|]; rows sum to one.
    """
    space = evidence.label_space
    pieces, places = [], []
    for names, outputs in zip(space.teachers, evidence.outputs, strict=True):
        kept = [index for index, name in enumerate(names) if name is not None]
        pieces.append(outputs.logits[:, kept])
        places += [space.label2id[name] for name in names if name is not None]
    p = torch.softmax(torch.cat(pieces, dim=-1) / temperature, dim=-1)
    return p.new_zeros(len(p), len(space)).index_add(1, torch.tensor(places), p)
