"""Dropout with a seed: fast masks on the CPU, the same for the same seed (section 9.6).

torch draws a CPU mask value by value on one thread: in a MiniLM that takes as long as the rest of the pass.
Here 16 random bits decide a value, whole arrays at a time, and a pool of values serves a stack of passes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from worker.muka.patching import replaced_forwards
from worker.muka.seeds import seeded
from worker.muka.uncertainty import dropout_modules

POOL = 2**23
"""Values that are drawn before values are used again."""

_BITS = 16


class MaskPool:
    """Bernoulli masks of one rate and type: zeros with probability p, else 1/(1-p).

    The first `POOL` values are fresh; later masks are windows on them at random places. So every value is
    an honest draw and two passes of a text have different masks, while texts of different batches may share
    some. The rate is that of 16 bits, at most 8e-6 from p, and the scale belongs to it: the mean is 1.
    """

    def __init__(self, seed: int, rate: float, dtype: torch.dtype) -> None:
        self._random = np.random.Generator(np.random.SFC64(seed))
        self._threshold = min(round(rate * 2**_BITS), 2**_BITS - 1)
        self._scale = 2**_BITS / (2**_BITS - self._threshold)
        self._dtype = dtype
        self._drawn: list[Tensor] = []
        self._pool: Tensor | None = None

    def take(self, count: int) -> Tensor:
        """So many values: [count]."""
        if self._pool is None and sum(map(len, self._drawn)) >= POOL:
            self._pool, self._drawn = torch.cat(self._drawn), []
        if self._pool is None or count > len(self._pool):
            fresh = self._draw(count)
            if self._pool is None:
                self._drawn.append(fresh)
            return fresh
        start = int(self._random.integers(len(self._pool) - count + 1))
        return self._pool[start : start + count]

    def _draw(self, count: int) -> Tensor:
        raw = self._random.bit_generator.random_raw(-(-count * _BITS // 64))
        kept = torch.from_numpy(raw.view(np.uint16)[:count] >= np.uint16(self._threshold))
        return kept.to(self._dtype).mul_(self._scale)


class _Masks:
    """The pools of one seed, one for each rate and type."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._pools: dict[tuple[float, torch.dtype], MaskPool] = {}

    def apply(self, rate: float, x: Tensor) -> Tensor:
        """Dropout of x with a mask of its own."""
        key = (rate, x.dtype)
        if key not in self._pools:
            self._pools[key] = MaskPool(self._seed, *key)
        return x * self._pools[key].take(x.numel()).view(x.shape)


@contextmanager
def seeded_dropout(model: nn.Module, seed: int, device: torch.device) -> Iterator[None]:
    """Whatever dropout the block does is drawn from the seed; the caller's random state is left alone.

    On the CPU `nn.Dropout` layers that are in train mode take their masks from a `MaskPool`. Everything else
    (other classes, dropout inside attention, GPUs) draws from torch's generators, which are seeded too.
    """
    masks = _Masks(seed)
    layers = [m for m in dropout_modules(model) if type(m) is nn.Dropout and m.training]
    fast = [(layer, partial(masks.apply, layer.p)) for layer in layers if device.type == "cpu"]
    with seeded(seed, device), replaced_forwards(fast):
        yield
