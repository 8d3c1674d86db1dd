"""Adaptive K: stop sampling a text once its ranking of teachers is decided (section 9.5)."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from worker.muka.batching import Rows, TokenisedTexts
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
        """softmax(z^(k)) of the texts `rows`: [len(rows), count, C] float32, on any device."""


class _Moments:
    """Sums of draws and of their squares, each row drawn as often as it needed, on the CPU."""

    def __init__(self, *shape: int) -> None:
        self.total, self._squares = torch.zeros(shape), torch.zeros(shape)

    def add(self, rows: Rows, draws: Tensor) -> None:
        """Some draws of these rows: [len(rows), draws, ...]."""
        self.total[rows] += draws.sum(1).cpu()
        self._squares[rows] += draws.square().sum(1).cpu()

    def variance_of_mean(self, k: Tensor) -> Tensor:
        """Squared standard error of the mean of k >= 2 draws."""
        return (self._squares - self.total.square() / k).clamp_min(0) / (k - 1) / k


class Samples:
    """Running sums over one teacher's dropout passes of n texts, each sampled as often as it needed.

    Args:
        sampler: Draws the passes.
        answer: The deterministic pass.
        sampled: Whether there is anything to draw.
        kept: Makes distributions over all classes [..., C] ones over the c kept labels [..., c]; None where
            these are all classes.
    """

    def __init__(
        self,
        sampler: DrawsPasses,
        answer: Answer,
        *,
        sampled: bool,
        kept: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._sampler = sampler
        self._sampled = sampled
        self._kept = kept
        self._answer, logits = answer, answer.logits
        n = len(logits)
        self._p, self._entropy = torch.zeros_like(logits), _Moments(n)
        c = logits.shape[-1] if kept is None else kept(logits[:1].softmax(-1)).shape[-1]
        self._kept_p, self._kept_entropy = _Moments(n, c), _Moments(n)
        self._passes = torch.zeros(n)

    def take(self, first: int, count: int, rows: Rows) -> None:
        """A stack of passes of these texts; nothing for a teacher without dropout."""
        if not self._sampled:
            return
        p = self._sampler.dropout_passes(first, count, rows)
        each = entropy(p)
        self._p[rows] += p.sum(1).cpu()
        self._entropy.add(rows, each)
        kept = p if self._kept is None else self._kept(p)
        self._kept_p.add(rows, kept)
        self._kept_entropy.add(rows, each if self._kept is None else entropy(kept))
        self._passes[rows] += count

    def outputs(self) -> TeacherOutputs:
        """What is known so far; the deterministic pass where nothing was sampled."""
        if not self._sampled:
            return unsampled(self._answer)
        k, answer = self._passes, self._answer
        p_hat, each = self._p / k[:, None], self._entropy.total / k
        return TeacherOutputs(answer.logits, p_hat, k.short(), each, answer.features)

    def variance_of_score(self, score: str) -> Tensor:
        """Squared standard error of a score, from how its passes differ: [n]; k >= 2.

        Of `max_probability`, that of the likeliest label's mean probability. Of `entropy`, the larger one of
        that of the passes' mean entropy and that of the entropy of their mean, by its derivatives and without
        the covariances of labels. Of `bald`, that of the mean entropy over all classes: it decides late.
        """
        if not self._sampled:
            return torch.zeros_like(self._passes)
        k, c = self._passes, self._kept_p.total.shape[-1]
        if score == "bald":
            return self._entropy.variance_of_mean(k) / math.log(self._p.shape[-1]) ** 2
        of_p = self._kept_p.variance_of_mean(k[:, None])
        if score == "max_probability":
            likeliest = self._kept_p.total.argmax(-1, keepdim=True)
            return of_p.gather(-1, likeliest)[:, 0] / (1.0 - 1.0 / c) ** 2
        p_hat = self._kept_p.total / k[:, None]
        slopes = -p_hat.clamp_min(_TINY).log() - entropy(p_hat)[:, None]
        of_mean = (slopes.square() * of_p).sum(-1)
        return torch.maximum(self._kept_entropy.variance_of_mean(k), of_mean) / math.log(c) ** 2


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
    tokens: Sequence[TokenisedTexts] = (),
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
        tokens: For each teacher the texts', where they were made ahead.
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
    for i, (teacher, answer) in enumerate(zip(teachers, known or [None] * len(teachers), strict=True)):
        sampler = ShardSampler(
            teacher,
            texts,
            seed=sampling.seed,
            shard=shard,
            max_length=max_length,
            precision=precision,
            token_budget=token_budget,
            tokens=tokens[i] if tokens else None,
            on_batch=on_batch,
            should_stop=should_stop,
        )
        plain = answer or sampler.deterministic(features=features)
        kept = None if space.keeps_all(i) else partial(space.project, i)
        sampled = teacher.has_dropout and sampling.passes > 0
        samples.append(Samples(sampler, plain, sampled=sampled, kept=kept))
    sample_until_decided(samples, space, len(texts), sampling, teachers[0].device)
    return [sample.outputs() for sample in samples]


def sample_until_decided(
    samples: Sequence[Samples],
    space: LabelSpace,
    n: int,
    sampling: Sampling,
    device: torch.device,
) -> None:
    """Take stack after stack of the n texts whose ranking is still open, of all teachers in turn."""
    undecided = np.arange(n)
    for first, count in stacks(sampling.passes, device, adaptive=True):
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
