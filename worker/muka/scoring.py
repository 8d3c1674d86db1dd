"""What the teachers say about the corpus, shard by shard: computed once and kept (section 9.2 to 9.6)."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from worker.muka.attention import suited_attention
from worker.muka.batching import Rows, TokenisedTexts, to_device, tokenise
from worker.muka.dropout import seeded_dropout
from worker.muka.errors import StoppedError
from worker.muka.forward import Answer, forward
from worker.muka.kernels import fused_linear
from worker.muka.memory import TokenBudget, in_token_batches
from worker.muka.precision import autocast
from worker.muka.recipe import Precision, Sampling
from worker.muka.seeds import derive_seed
from worker.muka.teacher import Teacher
from worker.muka.uncertainty import enable_dropout, entropy

SHARD_SIZE = 1024
"""Texts in a shard of the corpus; fixed, because the dropout seeds count shards."""

_LARGEST_STACK = 4
_LARGEST_STACK_OF_GPU = 16
"""Dropout passes that go through a model together. A GPU wants large batches."""


@dataclass(frozen=True)
class TeacherOutputs:
    """What one teacher says about n texts, on the CPU.

    Attributes:
        logits: z [n, C] float32, deterministic.
        mc_probabilities: p̂ [n, C] float32, mean over the dropout passes; softmax(z) without passes.
        passes: [n] int16, dropout passes spent on each text.
        pass_entropy: [n] float32, mean over the passes of each one's entropy in nats.
        features: [n, width] float32, pooled sentence features, or None where no method wants them.
    """

    logits: Tensor
    mc_probabilities: Tensor
    passes: Tensor
    pass_entropy: Tensor
    features: Tensor | None = None

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """Those that there are, by name."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def save(self, path: Path) -> None:
        """Write one safetensors file."""
        save_file({name: tensor.contiguous() for name, tensor in self.tensors.items()}, path)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote."""
        return cls(**load_file(path))

    def rows(self, rows: slice | Tensor) -> "TeacherOutputs":
        """The outputs for some of the texts; those for a slice share the memory of all."""
        return TeacherOutputs(**{name: tensor[rows] for name, tensor in self.tensors.items()})

    @classmethod
    def cat(cls, shards: Sequence["TeacherOutputs"]) -> Self:
        """The outputs for several shards as one, in order."""
        return cls(
            **{name: torch.cat([getattr(shard, name) for shard in shards]) for name in shards[0].tensors}
        )


class ShardSampler:
    """Runs one teacher over one shard: deterministically, or with stacks of dropout masks.

    A stack of passes is a function of (seed, teacher, shard, its first pass and their number) and the rows
    asked for; stacks can be taken in any order and on a part of the shard, so that sampling can go over
    several teachers together. The passes of a text go through the model together: more texts of one length.
    One by one they go through a model that has one mask for all texts of a batch.
    """

    def __init__(
        self,
        teacher: Teacher,
        texts: Sequence[str],
        *,
        seed: int,
        shard: int,
        max_length: int,
        precision: Precision = "auto",
        token_budget: int | None = None,
        tokens: TokenisedTexts | None = None,
        on_batch: Callable[[int], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        self._teacher = teacher
        self._texts = tokens or tokenise(teacher.tokenizer, texts, min(max_length, teacher.max_length))
        self._seed_of_stack = partial(derive_seed, seed, "dropout", teacher.digest, shard)
        self._dtype = _computing_type(teacher, precision)
        self._budget = TokenBudget.for_device(token_budget, teacher.device)
        self._on_batch = on_batch or _ignore
        self._should_stop = should_stop or (lambda: False)

    def deterministic(self, *, features: bool = False) -> Answer:
        """One pass with dropout off over the whole shard: logits [n, C] (and features) float32."""
        answer = self._run(np.arange(len(self._texts)), features=features)
        return Answer(answer.logits.cpu(), None if answer.features is None else answer.features.cpu())

    def dropout_passes(self, first: int, count: int, rows: Rows) -> Tensor:
        """softmax(z^(k)) of the texts `rows`, for `count` dropout masks.

        Returns:
            [len(rows), count, C] float32, on the teacher's device.
        """
        if count > 1 and self._teacher.drops_for_all_texts:
            return torch.cat([self.dropout_passes(first + i, 1, rows) for i in range(count)], dim=1)
        model, seed = self._teacher.model, self._seed_of_stack(first, count)
        with enable_dropout(model), seeded_dropout(model, seed, self._teacher.device):
            logits = self._run(np.repeat(rows, count)).logits
        return torch.softmax(logits.view(len(rows), count, -1), dim=-1)

    @torch.inference_mode()
    def _run(self, rows: Rows, *, features: bool = False) -> Answer:
        """One pass a row; nothing waits for a GPU, and the answers stay there."""
        batches, answers = [], []
        model, device = self._teacher.model, self._teacher.device
        with fused_linear(model), suited_attention(model), autocast(self._dtype, device):
            step = lambda places: self._answer(rows[places], features)  # noqa: E731
            for places, answer in in_token_batches(step, self._texts.lengths[rows], self._budget):
                batches.append(torch.from_numpy(places))
                answers.append(answer)
                self._on_batch(len(places))
        back = to_device(torch.argsort(torch.cat(batches)), device)
        pooled = [answer.features for answer in answers if answer.features is not None]
        logits = torch.cat([answer.logits for answer in answers]).float()
        return Answer(logits[back], torch.cat(pooled).float()[back] if features else None)

    def _answer(self, rows: Rows, features: bool) -> Answer:
        if self._should_stop():
            raise StoppedError
        batch = self._texts.collate(rows, self._teacher.device)
        return forward(self._teacher.model, batch, features=features)


def _ignore(_: int) -> None:
    """Nobody wants to know of progress."""


def _computing_type(teacher: Teacher, precision: Precision) -> torch.dtype:
    """With "auto" it computes in the type of the teacher's weights."""
    weights = torch.float32 if teacher.model.dtype == torch.float32 else torch.bfloat16
    if precision == "float32" and weights != torch.float32:
        raise ValueError(
            "precision is 'float32'; allowed: auto, bfloat16 (the teacher's weights are bfloat16)"
        )
    return torch.bfloat16 if precision == "bfloat16" and weights == torch.float32 else torch.float32


def score_shard(
    teacher: Teacher,
    texts: Sequence[str],
    *,
    sampling: Sampling,
    shard: int,
    max_length: int,
    precision: Precision = "auto",
    token_budget: int | None = None,
    features: bool = False,
    known: Answer | None = None,
    tokens: TokenisedTexts | None = None,
    on_batch: Callable[[int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> TeacherOutputs:
    """A teacher's deterministic logits and its Monte-Carlo dropout average for one shard (section 3).

    The same arguments give the same numbers on the same kind of device, whichever worker computes them.

    Args:
        teacher: Loaded and frozen.
        texts: The shard's texts, at most `SHARD_SIZE` in a job.
        sampling: Tells K; 0 passes, or a teacher without dropout, leave the deterministic pass. Adaptive
            sampling compares teachers, see `score_shard_adaptively`.
        shard: The shard's number in the corpus.
        max_length: Tokens per text; the teacher's own maximum caps it.
        precision: "auto" is the type the teacher was loaded in; "bfloat16" autocasts float32 weights.
        token_budget: Tokens per batch; halved when memory runs out.
        features: Whether pooled sentence features are wanted as well.
        known: The deterministic pass, where it was done before.
        tokens: The texts', where they were made ahead.
        on_batch: Told after each batch how many text passes were just done.
        should_stop: Asked before each batch.

    Raises:
        StoppedError: `should_stop` answered True.
        CorpusEmptyError: No texts.
        OutOfMemoryError_: Not even one text fits.
        ValueError: The sampling is adaptive.
    """
    if sampling.adaptive_bound is not None:
        raise ValueError("sampling is adaptive; allowed: exactly K passes, or score_shard_adaptively")
    sampler = ShardSampler(
        teacher,
        texts,
        seed=sampling.seed,
        shard=shard,
        max_length=max_length,
        precision=precision,
        token_budget=token_budget,
        tokens=tokens,
        on_batch=on_batch,
        should_stop=should_stop,
    )
    answer = known or sampler.deterministic(features=features)
    if not (teacher.has_dropout and sampling.passes):
        return unsampled(answer)
    p_hat, pass_entropy = _average(sampler, len(texts), sampling.passes, teacher.device)
    passes = torch.full((len(texts),), sampling.passes, dtype=torch.int16)
    return TeacherOutputs(answer.logits, p_hat, passes, pass_entropy, answer.features)


def unsampled(answer: Answer) -> TeacherOutputs:
    """The outputs of a teacher from its deterministic pass alone."""
    p = torch.softmax(answer.logits, dim=-1)
    passes = torch.zeros(len(p), dtype=torch.int16)
    return TeacherOutputs(answer.logits, p, passes, entropy(p), answer.features)


def _average(sampler: ShardSampler, n: int, samples: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """p̂ [n, C] and the mean entropy of the passes [n]."""
    rows, total, total_entropy = np.arange(n), torch.zeros(()), torch.zeros(())
    for first, count in stacks(samples, device):
        p = sampler.dropout_passes(first, count, rows)
        total, total_entropy = p.sum(1) + total, entropy(p).sum(1) + total_entropy
    return (total / samples).cpu(), (total_entropy / samples).cpu()


def stacks(passes: int, device: torch.device, *, adaptive: bool = False) -> Iterator[tuple[int, int]]:
    """How K passes are stacked, as (first, count).

    On the CPU 2, 2, 4, 4, ... for fixed and for adaptive K, which so share the masks; adaptive K decides
    between them. Looking more often would hardly save passes, and costs batches that are too small. On a GPU
    16 at a time, or 2, 2, 4, 8, 16, ... where K is adaptive.

    Args:
        passes: K.
        device: Of the teacher.
        adaptive: Whether passes are decided about.
    """
    on_gpu = device.type == "cuda"
    largest = _LARGEST_STACK_OF_GPU if on_gpu else _LARGEST_STACK
    smallest = largest if on_gpu and not adaptive else 2
    first = 0
    while first < passes:
        count = min(max(first, smallest), largest, passes - first)
        yield first, count
        first += count
