"""A mixture of label clusters in the feature spaces of all teachers, fitted without gold labels.

A fine-tuned teacher draws the texts of each of its own labels together, and leaves the texts that it does
not know scattered between them. So in each space a label that the teacher knows is a tight normal cluster, a
label that it does not know is a broad one, and a text has one label: it lies in that label's cluster in every
space. Nothing but the teachers' own answers tells which label that is, and expectation maximisation improves
on it: clusters from answers, answers from clusters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.nn.functional import normalize

_KNOWN_PRIOR, _FOREIGN_PRIOR = 1.0, 10.0
"""So many texts at the mean of all known (of all foreign) texts are added to each label's cluster."""
_VARIANCE_FLOOR = 1e-4
_ALMOST_NONE = 1e-3


@dataclass(frozen=True)
class FeatureSpace:
    """A teacher's features as unit vectors around their mean, in their leading principal directions.

    Attributes:
        mean: Of the features [width].
        centre: Of the unit vectors [width].
        directions: Orthonormal [width, d], by falling variance.
    """

    mean: Tensor
    centre: Tensor
    directions: Tensor

    @classmethod
    def of(cls, features: Tensor, d: int) -> Self:
        """The space of these features [n, width], in at most `d` directions."""
        mean = features.mean(0)
        unit = normalize(features - mean, dim=-1)
        centre = unit.mean(0)
        around = (unit - centre).double()
        directions = torch.linalg.eigh(around.T @ around).eigenvectors.flip(-1)[:, :d]
        return cls(mean, centre, directions.to(features))

    def __call__(self, features: Tensor) -> Tensor:
        """Where these features [n, width] lie: [n, d]."""
        return (normalize(features - self.mean, dim=-1) - self.centre) @ self.directions


@dataclass(frozen=True)
class LabelClusters:
    """The clusters of all labels in one teacher's space, normal with axes along its directions.

    Attributes:
        means: [|L|, d].
        variances: [|L|, d]; one for all labels that the teacher knows, another for all others.
    """

    means: Tensor
    variances: Tensor

    @classmethod
    def fit(cls, z: Tensor, r: Tensor, known: Tensor) -> Self:
        """The most likely clusters, given how much each text belongs to each label.

        Args:
            z: Where n texts lie [n, d].
            r: How much they belong to each label [n, |L|]; rows sum to one.
            known: Which labels the teacher knows, bool [|L|].
        """
        texts, sums = r.sum(0)[:, None], r.T @ z
        means, variances = torch.zeros_like(sums), torch.ones_like(sums)
        for group, prior in ((known, _KNOWN_PRIOR), (~known, _FOREIGN_PRIOR)):
            count = texts[group].sum().clamp_min(_ALMOST_NONE)
            means[group] = (sums[group] + prior * sums[group].sum(0) / count) / (texts[group] + prior)
            m = means[group]
            squares = (r[:, group].T @ z.square()) - 2 * m * sums[group] + texts[group] * m.square()
            variances[group] = squares.sum(0) / count + _VARIANCE_FLOOR
        return cls(means, variances)

    def log_density(self, z: Tensor) -> Tensor:
        """Of each text in each label's cluster, up to a constant: [n, |L|].

        Divided by √d: directions are no independent witnesses, and d of them taken for such would make
        every choice a certainty.
        """
        weight = 1 / self.variances
        distance = (
            z.square() @ weight.T - 2 * z @ (self.means * weight).T + (self.means.square() * weight).sum(-1)
        )
        return -(distance + self.variances.log().sum(-1)) / (2 * math.sqrt(z.shape[-1]))


@dataclass(frozen=True)
class Mixture:
    """What was learnt of all teachers.

    Attributes:
        spaces: One a teacher.
        clusters: One a teacher.
        known: Which teacher knows which label, bool [N, |L|].
    """

    spaces: Sequence[FeatureSpace]
    clusters: Sequence[LabelClusters]
    known: Tensor

    @classmethod
    def fit(cls, spaces: Sequence[FeatureSpace], z: Sequence[Tensor], r: Tensor, known: Tensor) -> Self:
        """One step of maximisation; see `LabelClusters.fit`."""
        return cls(
            spaces, [LabelClusters.fit(*each) for each in zip(z, [r] * len(z), known, strict=True)], known
        )

    def scores(self, z: Sequence[Tensor]) -> Tensor:
        """For each text the log of the evidence for each teacher's labels together: [n, N].

        Labels count alike however many texts they seem to have, so that a rare one is not outvoted.
        """
        return self.evidence(self.log_density(z))

    def log_density(self, z: Sequence[Tensor]) -> Tensor:
        """Of each text in each label's clusters in all spaces, up to a constant: [n, |L|]."""
        return sum((c.log_density(each) for c, each in zip(self.clusters, z, strict=True)), torch.zeros(()))

    def evidence(self, density: Tensor) -> Tensor:
        """`scores`, of what `log_density` gives."""
        return torch.stack([density[:, known].logsumexp(-1) for known in self.known], dim=-1)

    def scores_of(self, features: Sequence[Tensor]) -> Tensor:
        """As `scores`, for features [n, width_i] of every teacher."""
        return self.scores([space(each) for space, each in zip(self.spaces, features, strict=True)])
