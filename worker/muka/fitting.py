"""Expectation maximisation of the mixture of label clusters (`worker.muka.clusters`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from worker.muka.clusters import FeatureSpace, Mixture
from worker.muka.label_space import LabelSpace
from worker.muka.supervision import golden_supervision


@dataclass(frozen=True)
class Fit:
    """What some rounds came to.

    Attributes:
        mixture: The clusters.
        r: How much each text belongs to each label, by them [n, |L|]; rows sum to one.
        log_likelihood: Of all texts, up to a constant.
    """

    mixture: Mixture
    r: Tensor
    log_likelihood: float


@dataclass(frozen=True)
class Fitting:
    """What the rounds need of n texts and N teachers.

    Attributes:
        label_space: The union of the teachers' labels.
        spaces: One a teacher.
        z: Where the texts lie in each of them [n, d].
        p: What each teacher answers [n, C_i].
        temperature: τ of the soft weights.
        on_block: Called before every round; what it raises ends them.
    """

    label_space: LabelSpace
    spaces: Sequence[FeatureSpace]
    z: Sequence[Tensor]
    p: Sequence[Tensor]
    temperature: float
    on_block: Callable[[], None]

    def belonging(self, scores: Tensor) -> Tensor:
        """How much each text belongs to each label [n, |L|], given how well it fits each teacher [n, N]."""
        w = torch.softmax(scores / self.temperature, dim=-1)
        return golden_supervision(self.p, w, self.label_space)

    def rounds(self, r: Tensor, count: int) -> Fit:
        """So many times clusters from `r` [n, |L|], and `r` from clusters."""
        for _ in range(count):
            self.on_block()
            mixture = Mixture.fit(self.spaces, self.z, r, self.label_space.known)
            density = mixture.log_density(self.z)
            r = self.belonging(mixture.evidence(density))
        return Fit(mixture, r, density.logsumexp(-1).double().sum().item())
