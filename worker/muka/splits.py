"""Labels that the mixture has lost, and how it finds them again: it splits the cluster that took their texts.

Expectation maximisation keeps what it began with. Where another teacher was surer at first about the texts of
a label, a label of that teacher takes them all, and the lost one has no cluster that could win any of them
back: `timezone` and `time`, labels of two teachers. Then the cluster that took them has two halves in the
features of the teacher that knows the lost label. So halves are tried as clusters of their own, and kept
where the whole mixture explains all texts better with one than without: split moves, as in Ueda et al. 2000,
"SMEM algorithm for mixture models". A label that no text has is not found in that way.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from worker.muka.fitting import Fit, Fitting

_LOST = 0.3
"""A label with less than this share of the texts that a label has on average is lost."""
_FEWEST = 4
"""Texts that its teacher must give a lost label in the cluster that is to be split."""
_WORTH = 2.0
"""Log density that a split must gain for each text that it gives away."""
_SWEEPS = 3
"""Clusters of which a lost label may be looked for, one after the other."""
_MOST_TRIALS = 48
"""Splits that are tried in all: each takes as long as the mixture's own rounds, by half."""
_ROUNDS = 4
_HALVING_ROUNDS = 20


@dataclass(frozen=True)
class Split:
    """One half of a cluster, for a label that is lost.

    Attributes:
        lost: The label.
        taker: The label that has the texts.
        texts: Those that it is to give away, int64 [k].
        promise: The larger, the rather is it tried.
    """

    lost: int
    taker: int
    texts: Tensor
    promise: float

    @property
    def of_whom(self) -> tuple[int, int]:
        """Both labels."""
        return self.lost, self.taker

    def of(self, r: Tensor) -> Tensor:
        """`r` [n, |L|] with these texts given to the lost label."""
        given = r.clone()
        given[self.texts] = 0.0
        given[self.texts, self.lost] = 1.0
        return given


def find_lost_labels(fitting: Fitting, fit: Fit) -> Fit:
    """A better fit in which fewer labels are lost; `fit` itself where there is none."""
    trials = _MOST_TRIALS
    tried: set[tuple[int, int]] = set()
    for _ in range(_SWEEPS):
        fresh = ([s for s in each if s.of_whom not in tried] for each in proposals(fitting, fit.r))
        likeliest = chain.from_iterable(splits[:2] for splits in fresh)
        splits = sorted(likeliest, key=lambda split: -split.promise)[:trials]
        trials -= len(splits)
        kept = _kept(fitting, fit, splits)
        takers = {split.taker for split in kept}
        tried = {pair for pair in tried.union(s.of_whom for s in splits) if pair[1] not in takers}
        if kept:
            r = fit.r
            for split in kept:
                r = split.of(r)
            fit = fitting.rounds(r, _ROUNDS)
    return fit


def _kept(fitting: Fitting, fit: Fit, splits: list[Split]) -> list[Split]:
    """Those that are better than none, and of each cluster the best one only."""
    if not splits:
        return []
    without = fitting.rounds(fit.r, _ROUNDS).log_likelihood
    better: list[tuple[float, Split]] = []
    for split in splits:
        found = fitting.rounds(split.of(fit.r), _ROUNDS)
        is_lost = _is_lost(found.r)
        is_worth_it = found.log_likelihood - without > _WORTH * len(split.texts)
        if is_worth_it and not (is_lost[split.lost] or is_lost[split.taker]):
            better.append((found.log_likelihood, split))
    best = {split.taker: split for _, split in sorted(better, key=lambda each: each[0])}
    return list(best.values())


def proposals(fitting: Fitting, r: Tensor) -> list[list[Split]]:
    """For each lost label both halves of each cluster in which its texts may be, the likeliest cluster first.

    Args:
        fitting: Of n texts.
        r: How much they belong to each label [n, |L|].
    """
    is_lost, has = _is_lost(r), r.argmax(-1)
    found: dict[int, list[Split]] = {}
    for teacher in range(len(fitting.p)):
        indices = fitting.label_space.indices(teacher)
        lost = indices[is_lost[indices]].tolist()
        if lost:
            says = indices[fitting.label_space.project(teacher, fitting.p[teacher]).argmax(-1)]
            halves = _Halves(fitting, teacher, has)
            for label in lost:
                takers = has[says == label].bincount(minlength=r.shape[1])
                takers[is_lost] = 0
                found.setdefault(label, []).extend(halves.for_label(label, takers))
    return [sorted(splits, key=lambda split: -split.promise) for splits in found.values()]


def _is_lost(r: Tensor) -> Tensor:
    n, labels = r.shape
    return r.sum(0) < _LOST * n / labels


class _Halves:
    """Of every label's texts, in the features of one teacher; each is found once, however many labels ask."""

    def __init__(self, fitting: Fitting, teacher: int, has: Tensor) -> None:
        self._on_block = fitting.on_block
        self._z = fitting.z[teacher]
        self._has = has
        self._found: dict[int, tuple[tuple[Tensor, Tensor], float]] = {}

    def for_label(self, lost: int, takers: Tensor) -> Iterator[Split]:
        """Both halves of each cluster with enough texts that the teacher calls by the lost label.

        Args:
            lost: The label.
            takers: How many texts that the teacher calls so each other label has [|L|].
        """
        for taker in (takers >= _FEWEST).nonzero()[:, 0].tolist():
            halves, explained = self._of(taker)
            if all(len(texts) >= _FEWEST for texts in halves):
                for texts in halves:
                    yield Split(lost, taker, texts, int(takers[taker]) * explained)

    def _of(self, taker: int) -> tuple[tuple[Tensor, Tensor], float]:
        if taker not in self._found:
            self._on_block()
            texts = (self._has == taker).nonzero()[:, 0]
            half = two_means(self._z[texts])
            self._found[taker] = (texts[half], texts[~half]), _explained(self._z[texts], half)
        return self._found[taker]


def two_means(z: Tensor) -> Tensor:
    """Two clusters of the points [n, d]: bool [n]. It begins with their side along the first direction."""
    around = z - z.mean(0)
    half: Tensor = torch.linalg.svd(around, full_matrices=False).U[:, 0] > 0
    for _ in range(_HALVING_ROUNDS):
        if half.all() or not half.any():
            break
        ours, others = z[half].mean(0), z[~half].mean(0)
        nearer = (z - ours).square().sum(-1) < (z - others).square().sum(-1)
        if torch.equal(nearer, half):
            break
        half = nearer
    return half


def _explained(z: Tensor, half: Tensor) -> float:
    """Share of the points' variance that lies between the halves."""
    total = (z - z.mean(0)).square().sum()
    within = sum(((z[part] - z[part].mean(0)).square().sum() for part in (half, ~half)), torch.zeros(()))
    return float(1 - within / total) if total > 0 else 0.0
