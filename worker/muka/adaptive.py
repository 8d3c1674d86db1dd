"""Adaptive K: stop sampling a text once its ranking of teachers is decided (section 9.5)."""

import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worker.muka.batching import Rows
from worker.muka.forward import Answer
from worker.muka.label_space import LabelSpace
from worker.muka.methods.choosing import teacher_scores
from worker.muka.methods.interface import Evidence
from worker.muka.recipe import Precision, Sampling
from worker.muka.scoring import ShardSampler, TeacherOutputs, stacks, unsampled
from worker.muka.supervision import margins
from worker.muka.teacher import Teacher
from worker.muka.uncertainty import entropy

_TINY = torch.finfo(torch.float32).tiny


class DrawsPasses(Protocol):
    """What a `ShardSampler` does."""

    def dropout_passes(self, first: int, count: int, rows: Rows) -> Tensor:
        """softmax(z^(k)) of the texts `rows`: [len(rows), count, C] float32."""


class Samples:
    """Running sums over one teacher's dropout passes of n texts, each sampled as often as it needed."""

    def __init__(self, sampler: DrawsPasses, answer: Answer, *, sampled: bool) -> None:
        self._sampler = sampler
        self._sampled = sampled
        self._answer, logits = answer, answer.logits
        self._p, self._p_squares = torch.zeros_like(logits), torch.zeros_like(logits)
        self._entropy, self._squares = torch.zeros(len(logits)), torch.zeros(len(logits))
        self._passes = torch.zeros(len(logits))

    def take(self, first: int, count: int, rows: Rows) -> None:
        """A stack of passes of these texts; nothing for a teacher without dropout."""
        if not self._sampled:
            return
        p = self._sampler.dropout_passes(first, count, rows)
        each = entropy(p)
        self._p[rows] += p.sum(1)
        self._p_squares[rows] += p.square().sum(1)
        self._entropy[rows] += each.sum(1)
        self._squares[rows] += each.square().sum(1)
        self._passes[rows] += count

    def outputs(self) -> TeacherOutputs:
        """What is known so far; the deterministic pass where nothing was sampled."""
        if not self._sampled:
            return unsampled(self._answer)
        k, answer = self._passes, self._answer
        p_hat, each = self._p / k[:, None], self._entropy / k
        return TeacherOutputs(answer.logits, p_hat, k.short(), each, answer.features)

    def variance_of_score(self, score: str) -> Tensor:
        """Squared standard error of a score, from how its passes differ: [n]; k >= 2.

        Of `max_probability`, that of the likeliest class's mean probability. Of `entropy`, the larger one of
        that of the passes' mean entropy and that of the entropy of their mean, by its derivatives and without
        the covariances of classes. The first alone serves `bald`, which decides late.
        """
        if not self._sampled:
            return torch.zeros_like(self._passes)
        k, C = self._passes, self._p.shape[-1]
        of_p = _variance_of_mean(self._p, self._p_squares, k[:, None])
        if score == "max_probability":
            likeliest = self._p.argmax(-1, keepdim=True)
            return of_p.gather(-1, likeliest)[:, 0] / (1.0 - 1.0 / C) ** 2
        variance = _variance_of_mean(self._entropy, self._squares, k)
        if score == "entropy":
            p_hat = self._p / k[:, None]
            slopes = -p_hat.clamp_min(_TINY).log() - entropy(p_hat)[:, None]
            variance = torch.maximum(variance, (slopes.square() * of_p).sum(-1))
        return variance / math.log(C) ** 2


def _variance_of_mean(total: Tensor, squares: Tensor, k: Tensor) -> Tensor:
    """Squared standard error of the mean of k draws, from their sum and the sum of their squares."""
    return (squares - total.square() / k).clamp_min(0) / (k - 1) / k


def score_shard_adaptively(
    teachers: Sequence[Teacher],
    texts: Sequence[str],
    *,
    sampling: Sampling,
    shard: int,
    max_length: int,
    precision: Precision = "auto",
    token_budget: int | None = None,
    features: bool = False,
    known: Sequence[Answer | None] = (),
    on_batch: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> list[TeacherOutputs]:
    """As `score_shard`, for all teachers together, with at most K passes a text instead of exactly K.

    A text is decided when, after k >= 2 of K passes, the margin between its two best teachers exceeds
    `sampling.adaptive_bound` plus two standard errors (more for few passes, by Student's t), both times
    sqrt(1 - k/K). So the outputs of a teacher depend on the others and on their label names: keep them under
    the digests and labels of all of them.

    Args:
        teachers: All of them, loaded at the same time.
        texts: As in `score_shard`.
        sampling: With a bound.
        shard: As in `score_shard`, like the rest.
        max_length: Tokens per text.
        precision: Of the computation.
        token_budget: Tokens per batch.
        features: Whether pooled sentence features are wanted as well.
        known: For each teacher its deterministic pass, where it was done before.
        on_batch: Told of text passes.
        should_stop: Asked before each batch.

    Returns:
        Outputs in the order of the teachers; `passes` tells how many each text took.

    Raises:
        StoppedError, CorpusEmptyError, OutOfMemoryError_: As `score_shard`.
        ValueError: The sampling has no bound.
    """
    if sampling.adaptive_bound is None:
        raise ValueError("sampling.adaptive_bound is None; allowed: [0.0, 1.0], or score_shard")
    space = LabelSpace.union([teacher.labels for teacher in teachers])
    samples = []
    for teacher, answer in zip(teachers, known or [None] * len(teachers), strict=True):
        sampler = ShardSampler(
            teacher,
            texts,
            seed=sampling.seed,
            shard=shard,
            max_length=max_length,
            precision=precision,
            token_budget=token_budget,
            on_batch=on_batch,
            should_stop=should_stop,
        )
        plain = answer or sampler.deterministic(features=features)
        samples.append(Samples(sampler, plain, sampled=teacher.has_dropout and sampling.passes > 0))
    sample_until_decided(samples, space, len(texts), sampling)
    return [sample.outputs() for sample in samples]


def sample_until_decided(samples: Sequence[Samples], space: LabelSpace, n: int, sampling: Sampling) -> None:
    """Take stack after stack of the n texts whose ranking is still open, of all teachers in turn."""
    undecided = np.arange(n)
    for first, count in stacks(sampling.passes):
        for sample in samples:
            sample.take(first, count, undecided)
        taken = first + count
        if taken < sampling.passes:
            undecided = undecided[~_decided(samples, space, sampling, taken).numpy()[undecided]]
        if not len(undecided):
            return


def _decided(samples: Sequence[Samples], space: LabelSpace, sampling: Sampling, taken: int) -> Tensor:
    """Whether the margin of each text is beyond doubt: bool [n].

    The question is what K passes would say, and `taken` of them are known: with each there is less left to
    doubt, by the finite population correction sqrt(1 - k/K), and bound and standard error shrink with it.
    """
    u = teacher_scores(Evidence(space, [sample.outputs() for sample in samples]), sampling.score)
    variances = torch.stack([sample.variance_of_score(sampling.score) for sample in samples], dim=-1)
    two_best = u.topk(2, dim=-1).indices
    error = variances.gather(-1, two_best).sum(-1).sqrt()
    left = math.sqrt(1.0 - taken / sampling.passes)
    errors = student_t(2 * (taken - 1)) * error
    return margins(u) > left * ((sampling.adaptive_bound or 0.0) + errors)


def student_t(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by the expansion of Cornish and Fisher: 1.96 for many degrees.

    A standard error from two passes is a guess; this many of it hold as often as two sound ones. The
    expansion is 3 % too small at 2 degrees of freedom, and exact to three digits from 6 on.
    """
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / float(degrees**power) for power, term in enumerate(terms, start=1))
