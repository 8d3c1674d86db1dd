"""Evidence from made-up logits, for tests of the methods."""

from collections.abc import Sequence

import torch
from torch import Tensor

from worker.muka.label_space import LabelSpace
from worker.muka.methods import Evidence
from worker.muka.scoring import TeacherOutputs
from worker.muka.uncertainty import entropy

Names = Sequence[str | None]


def outputs(logits: Tensor, p_hat: Tensor | None = None, features: Tensor | None = None) -> TeacherOutputs:
    p = logits.softmax(-1) if p_hat is None else p_hat
    return TeacherOutputs(logits, p, torch.zeros(len(logits), dtype=torch.int16), entropy(p), features)


def random_evidence(*names: Names, n: int = 6, scale: float = 3.0, seed: int = 0) -> Evidence:
    """Teachers with these labels, and features 3, 4, 5, ... wide."""
    generator = torch.Generator().manual_seed(seed)
    answers = [
        outputs(
            scale * torch.randn(n, len(labels), generator=generator),
            features=torch.randn(n, 3 + i, generator=generator),
        )
        for i, labels in enumerate(names)
    ]
    return Evidence(LabelSpace.union(names), answers, student_width=8)


def permuted(evidence: Evidence, order: Sequence[int]) -> Evidence:
    """The same teachers in another order."""
    space = LabelSpace.union([evidence.label_space.teachers[i] for i in order])
    return Evidence(space, [evidence.outputs[i] for i in order], student_width=evidence.student_width)
