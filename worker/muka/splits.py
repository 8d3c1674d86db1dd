"""Labels that the mixture has lost, and how it finds them again: it splits the cluster that took their texts.

Expectation maximisation keeps what it began with. Where another teacher was surer at first about the texts of
a label, a label of that teacher takes them all, and the lost one has no cluster that could win any of them
back: `timezone` and `time`, labels of two teachers. Then the cluster that took them has two halves in the
features of the teacher that knows the lost label. So halves are tried as clusters of their own, and kept
where the whole mixture explains all texts better with one than without: split moves, as in Ueda et al. 2000,
"SMEM algorithm for mixture models". A taker may itself have lost its texts to a third label, so that it has
none left when it gives away those that it took: then it looks for its own in the same move. A label that no
text has is not found in that way.
"""

from collections.abc import Iterable, Iterator, Sequence
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
_FURTHER = 4
"""Splits that are tried for a taker that another split leaves without texts."""
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


@dataclass(frozen=True)
class Move:
    """One split, or two: the taker of the first, which is left without texts, gets others by the second."""

    splits: tuple[Split, ...]

    @property
    def labels(self) -> set[int]:
        """All that give or get."""
        return {label for split in self.splits for label in split.of_whom}

    @property
    def size(self) -> int:
        """How many texts change their label."""
        return sum(len(split.texts) for split in self.splits)

    def of(self, r: Tensor) -> Tensor:
        """`r` [n, |L|] after it."""
        for split in self.splits:
            r = split.of(r)
        return r


def find_lost_labels(fitting: Fitting, fit: Fit) -> Fit:
    """A better fit in which fewer labels are lost; `fit` itself where there is none."""
    search = _Search(fitting)
    for _ in range(_SWEEPS):
        moves = search.better(fit)
        if moves:
            r = fit.r
            for move in moves:
                r = move.of(r)
            fit = fitting.rounds(r, _ROUNDS)
    return fit


class _Search:
    """Tries splits, each once for as long as its cluster stays as it is, and so many in all."""

    def __init__(self, fitting: Fitting) -> None:
        self._fitting = fitting
        self._left = _MOST_TRIALS
        self._tried: set[tuple[int, int]] = set()

    def better(self, fit: Fit) -> list[Move]:
        """Those that explain the texts better than none, the best ones first; no label is in two of them."""
        splits = self._likeliest(fit.r)[: self._left]
        if not splits:
            return []
        without = self._fitting.rounds(fit.r, _ROUNDS).log_likelihood
        moves: list[Move] = []
        for move, outcome in sorted(self._outcomes(fit.r, splits), key=lambda each: -each[1].log_likelihood):
            is_worth_it = outcome.log_likelihood - without > _WORTH * move.size
            is_alone = not any(move.labels & other.labels for other in moves)
            if is_worth_it and is_alone and not outcome.is_lost[list(move.labels)].any():
                moves.append(move)
        changed = {label for move in moves for label in move.labels}
        tried = self._tried | {split.of_whom for split in splits}
        self._tried = {pair for pair in tried if pair[1] not in changed}
        return moves

    def _outcomes(self, r: Tensor, splits: Sequence[Split]) -> Iterator[tuple[Move, "_Outcome"]]:
        """Of each split, and then of those that leave a taker without texts together with a further one."""
        bereaved = []
        for split in splits:
            outcome = self._outcome(r, move := Move((split,)))
            yield move, outcome
            if outcome.is_lost[split.taker] and not outcome.is_lost[split.lost]:
                bereaved.append(split)
        for split in bereaved:
            for further in self._further(r, split)[: self._left]:
                yield (move := Move((split, further))), self._outcome(r, move)

    def _outcome(self, r: Tensor, move: Move) -> "_Outcome":
        self._left -= 1
        fit = self._fitting.rounds(move.of(r), _ROUNDS)
        return _Outcome(fit.log_likelihood, _is_lost(fit.r))

    def _likeliest(self, r: Tensor) -> list[Split]:
        """Of each lost label both halves of the likeliest cluster that was not tried yet."""
        found = proposals(self._fitting, r, _is_lost(r).nonzero()[:, 0].tolist())
        fresh = ([s for s in splits if s.of_whom not in self._tried] for splits in found.values())
        return _by_promise(chain.from_iterable(splits[:2] for splits in fresh))

    def _further(self, r: Tensor, first: Split) -> list[Split]:
        """How the taker, which the first split leaves without texts, may find its own."""
        return proposals(self._fitting, first.of(r), [first.taker])[first.taker][:_FURTHER]


@dataclass(frozen=True)
class _Outcome:
    """Of a move: the texts' log likelihood, and which labels are lost afterwards [|L|]."""

    log_likelihood: float
    is_lost: Tensor


def proposals(fitting: Fitting, r: Tensor, wanted: Sequence[int]) -> dict[int, list[Split]]:
    """For each wanted label both halves of each cluster that may have its texts, the likeliest cluster first.

    Args:
        fitting: Of n texts.
        r: How much they belong to each label [n, |L|].
        wanted: Labels without texts of their own.
    """
    is_lost, has = _is_lost(r), r.argmax(-1)
    found: dict[int, list[Split]] = {label: [] for label in wanted}
    for teacher in range(len(fitting.p)):
        indices = fitting.label_space.indices(teacher)
        of_it = [label for label in indices.tolist() if label in found]
        if of_it:
            says = indices[fitting.label_space.project(teacher, fitting.p[teacher]).argmax(-1)]
            halves = _Halves(fitting, teacher, has)
            for label in of_it:
                takers = has[says == label].bincount(minlength=r.shape[1])
                takers[is_lost] = 0
                takers[label] = 0
                found[label] += halves.for_label(label, takers)
    return {label: _by_promise(splits) for label, splits in found.items()}


def _by_promise(splits: Iterable[Split]) -> list[Split]:
    return sorted(splits, key=lambda split: -split.promise)


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
