"""Out of memory is not death: take fewer texts at once and go on."""

import errno
import gc
from collections.abc import Callable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from worker.muka.batching import Rows, longest_first
from worker.muka.errors import OutOfMemoryError_

T = TypeVar("T")

_MESSAGES = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "out of memory",
    "could not create a primitive",  # oneDNN, whose kernels take memory of their own
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
)


_ALIKE = 0.9
"""Texts of this share of the longest one's length are as long, where there are enough of them."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory, of the GPU or the host, is used up."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _MESSAGES)


def release_memory() -> None:
    """Give cached blocks of the GPU back, so that a smaller attempt finds them."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class TokenBudget:
    """How many tokens, padding included, go through a model at once; halved when memory runs out.

    Attributes:
        tokens: The present budget.
        enough: As many keep the device busy; a batch that has them takes no text that wants more padding.
    """

    def __init__(self, tokens: int, enough: int | None = None) -> None:
        if tokens < 1:
            raise ValueError(f"token_budget is {tokens}; allowed: [1, inf)")
        self.tokens = tokens
        self.enough = tokens if enough is None else enough

    @classmethod
    def for_device(cls, tokens: int | None, device: torch.device) -> "TokenBudget":
        """The given budget, or a default that depends on the kind of device alone.

        The default must not depend on free memory: the dropout masks, and so the scores, depend on how
        a shard is cut into batches.
        """
        if device.type == "cuda":
            return cls(tokens or 131_072, enough=32_768)
        return cls(tokens or 4_096)

    def first_batch(self, lengths: NDArray[np.int64]) -> int:
        """How many of texts of falling lengths [n >= 1] are the first batch, at least one.

        As many as the budget allows. But where there are enough of them, texts much shorter than the first
        are left to the next batch: they would mostly be padding.
        """
        longest = int(lengths[0])
        batch = lengths[: self.texts(longest)]
        alike = int(np.count_nonzero(batch >= _ALIKE * longest))
        return min(len(batch), max(alike, -(-self.enough // longest)))

    def texts(self, longest: int) -> int:
        """Texts of length `longest` that fit, at least one."""
        return max(1, self.tokens // longest)

    def halve(self, texts: int, longest: int) -> None:
        """Allow half as many texts of length `longest` as were just tried.

        Raises:
            OutOfMemoryError_: It was a single text.
        """
        if texts <= 1:
            raise OutOfMemoryError_(
                f"a single text of {longest} tokens does not fit into memory",
                hint="Lower max_length, or use a machine with more memory.",
            )
        self.tokens = max(1, texts // 2) * longest


def in_token_batches(
    step: Callable[[Rows], T], lengths: NDArray[np.int64], budget: TokenBudget
) -> Iterator[tuple[Rows, T]]:
    """Run `step` on batches of row numbers, longest texts first, with fewer texts when memory runs out.

    Args:
        step: Answers for the rows it is given; called again with fewer rows after out of memory.
        lengths: Tokens of each text, [n].
        budget: Lowered in place when memory runs out.

    Yields:
        The rows of a batch and the answer for them.

    Raises:
        OutOfMemoryError_: Not even one text fits.
    """
    order = longest_first(lengths)
    falling = lengths[order]
    start = 0
    while start < len(order):
        rows = order[start : start + budget.first_batch(falling[start:])]
        try:
            answer = step(rows)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            budget.halve(len(rows), int(falling[start]))
        else:
            yield rows, answer
            start += len(rows)
            continue
        release_memory()
