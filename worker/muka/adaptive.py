"""Adaptive K: stop sampling a text once its ranking of teachers is decided (section 9.5)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from worker.muka.batching import Rows
from worker.muka.label_space import LabelSpace
from worker.muka.methods.interface import Evidence
from worker.muka.methods.muka import teacher_scores
from worker.muka.recipe import Method, Precision
from worker.muka.scoring import ShardSampler, TeacherOutputs
from worker.muka.supervision import margins
from worker.muka.teacher import Teacher
from worker.muka.uncertainty import entropy

_FEWEST_PASSES = 2
_STANDARD_ERRORS = 2.0


class _Samples:
    """Running sums over one teacher's dropout passes of n texts, each sampled as often as it needed."""

    def __init__(self, sampler: ShardSampler, logits: Tensor, *, sampled: bool) -> None:
        self._sampler = sampler
        self._sampled = sampled
        self._logits = logits
        self._p = torch.zeros_like(logits)
        self._entropy, self._squares = torch.zeros(len(logits)), torch.zeros(len(logits))
        self._passes = torch.zeros(len(logits))

    def take(self, k: int, rows: Rows) -> None:
        """The k-th pass of these texts; nothing for a teacher without dropout."""
        if not self._sampled:
            return
        p = self._sampler.dropout_pass(k, rows)
        each = entropy(p)
        self._p[rows] += p
        self._entropy[rows] += each
        self._squares[rows] += each.square()
        self._passes[rows] += 1

    def outputs(self) -> TeacherOutputs:
        """What is known so far; the deterministic pass where nothing was sampled."""
        if not self._sampled:
            p = self._logits.softmax(-1)
            return TeacherOutputs(self._logits, p, self._passes.short(), entropy(p))
        k = self._passes
        return TeacherOutputs(self._logits, self._p / k[:, None], k.short(), self._entropy / k)

    def variance_of_score(self) -> Tensor:
        """Squared standard error of the mean of the passes' normalised entropies: [n]; k >= 2."""
        if not self._sampled:
            return torch.zeros(len(self._logits))
        k = self._passes
        spread = (self._squares - self._entropy.square() / k).clamp_min(0) / (k - 1)
        return spread / k / math.log(self._logits.shape[-1]) ** 2


def score_shard_adaptively(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    *,
    method: Method,
    seed: int,
    shard: int,
    max_length: int,
    precision: Precision = "auto",
    token_budget: int | None = None,
    on_batch: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[TeacherOutputs]:
    """As `score_shard`, for all teachers together, with at most K passes a text instead of exactly K.

    A text is decided when, after at least 2 passes, the margin between its two best teachers exceeds
    `method.adaptive_bound` plus two standard errors. So the outputs of a teacher depend on the others:
    keep them under the digests of all of them.

    Returns:
        Outputs in the order of the teachers; `passes` tells how many each text took.

    Raises:
        StoppedError, CorpusEmptyError, OutOfMemoryError_: As `score_shard`.
    """
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    samples = []
    for teacher in teachers:
        sampler = ShardSampler(
            teacher,
            texts,
            seed=seed,
            shard=shard,
            max_length=max_length,
            precision=precision,
            token_budget=token_budget,
            on_batch=on_batch,
            should_stop=should_stop,
        )
        sampled = teacher.has_dropout and method.mc_samples > 0
        samples.append(_Samples(sampler, sampler.deterministic().logits, sampled=sampled))
    _sample_until_decided(samples, space, len(texts), method)
    return [sample.outputs() for sample in samples]


def _sample_until_decided(samples: Sequence[_Samples], space: LabelSpace, n: int, method: Method) -> None:
    undecided = np.arange(n)
    for k in range(method.mc_samples):
        for sample in samples:
            sample.take(k, undecided)
        if k + 1 >= _FEWEST_PASSES:
            undecided = undecided[~_decided(samples, space, method).numpy()[undecided]]
        if not len(undecided):
            return


def _decided(samples: Sequence[_Samples], space: LabelSpace, method: Method) -> Tensor:
    """Whether the margin of each text is beyond doubt: bool [n]."""
    u = teacher_scores(Evidence(space, [sample.outputs() for sample in samples]), method)
    variances = torch.stack([sample.variance_of_score() for sample in samples], dim=-1)
    two_best = u.topk(2, dim=-1).indices
    error = variances.gather(-1, two_best).sum(-1).sqrt()
    return margins(u) > method.adaptive_bound + _STANDARD_ERRORS * error
