"""Texts that lie close together: exact nearest neighbours by cosine, in blocks, without an index."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from worker.muka.seeds import derive_seed

REFERENCE_TEXTS = 32_768
"""Neighbours are sought among so many texts at most, so that time grows linearly with the corpus."""

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Neighbours:
    """The nearest reference texts of n texts, none of them its own neighbour.

    Attributes:
        rows: Row numbers in the corpus [n, k], nearest first.
        cosines: Their cosines [n, k].
    """

    rows: Tensor
    cosines: Tensor

    def mean(self, values: Tensor) -> Tensor:
        """Mean of `values` [n, ...] over the neighbours of each text, weighted by positive cosines."""
        weights = self.cosines.clamp_min(0)
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-6)
        return torch.einsum("nk,nk...->n...", weights, values[self.rows])


@dataclass(frozen=True)
class Space:
    """Features seen as unit vectors around their mean, made for a few rows at a time: they may be on a disk.

    Attributes:
        features: [n, width] float32.
        mean: [width], over all rows.
    """

    features: Tensor
    mean: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """The space of these features."""
        return cls(features, features.mean(0))

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Unit vectors of some rows."""
        return torch.nn.functional.normalize(self.features[rows] - self.mean, dim=-1)


def reference_rows(n: int, seed: int) -> Tensor:
    """Row numbers of the reference texts: all of them, or a sample that depends on n and the seed alone."""
    if n <= REFERENCE_TEXTS:
        return torch.arange(n)
    generator = torch.Generator().manual_seed(derive_seed(seed, "reference", n))
    return torch.randperm(n, generator=generator)[:REFERENCE_TEXTS].sort().values


def nearest(
    spaces: Sequence[Space], k: int, reference: Tensor, on_block: Callable[[], None] = lambda: None
) -> Neighbours:
    """The k nearest reference texts by the mean cosine over several spaces.

    Args:
        spaces: Of the same n texts.
        k: Fewer than there are reference texts.
        reference: Row numbers [r], rising.
        on_block: Called before each block of texts.
    """
    n = len(spaces[0])
    sought = [space[reference] for space in spaces]
    place = torch.full((n,), -1)
    place[reference] = torch.arange(len(reference))
    found = []
    for start in range(0, n, _ROWS_AT_ONCE):
        on_block()
        rows = slice(start, start + _ROWS_AT_ONCE)
        own = place[rows]
        cosines = torch.zeros(len(own), len(reference))
        for space, among in zip(spaces, sought, strict=True):
            cosines += space[rows] @ among.T / len(spaces)
        cosines[torch.nonzero(own >= 0).squeeze(-1), own[own >= 0]] = -torch.inf
        found.append(cosines.topk(k, dim=-1))
    values = torch.cat([block.values for block in found])
    return Neighbours(reference[torch.cat([block.indices for block in found])], values)
