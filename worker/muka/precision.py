"""Which number type is faster on a device: the meaning of precision "auto"."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from worker.muka.recipe import Precision

_PROBE = 512
_TURNS = 7
_WORTH_IT = 1.2


@cache
def bfloat16_speedup(device: torch.device) -> float:
    """How many times faster this host's CPU multiplies matrices in bfloat16 than in float32.

    Measured once a process, in some hundredths of a second, the best of several turns of each: far above 1
    where it is an instruction (AMX: 6, AVX512-BF16: 2), far below where it is emulated, so that noise does
    not decide. Flags of the processor do not tell whether the build of PyTorch uses it.

    What follows for an Intel Xeon with AMX-BF16, 2 threads, MiniLM-L6 (22 M parameters):

    - inference, microseconds a token at 12 and 64 tokens a text, batches of 4,096 tokens: float32 96
      and 86; autocast 35 and 26; weights cast to bfloat16 29 and 31. So teachers are cast when they
      are loaded, which takes half the memory too.
    - training with autocast, milliseconds a step of 32 texts: 151 (float32) and 166 at 12 tokens,
      945 and 391 at 64, 1,555 and 930 at 128. So it never costs much and soon halves the time.
    """
    dtypes = (torch.float32, torch.bfloat16)
    matrices = [torch.ones(_PROBE, _PROBE, device=device, dtype=dtype) for dtype in dtypes]
    turns = [[_seconds_of_square(matrix) for matrix in matrices] for _ in range(_TURNS)]
    float32, bfloat16 = (min(times) for times in zip(*turns, strict=True))
    return float(float32 / bfloat16)


def _seconds_of_square(matrix: torch.Tensor) -> float:
    started = time.perf_counter()
    torch.mm(matrix, matrix)
    return time.perf_counter() - started


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether bfloat16 pays: on Ampere GPUs and later, and on CPUs where it was measured to."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and bfloat16_speedup(device) >= _WORTH_IT


def resolve(precision: Precision, device: torch.device) -> torch.dtype:
    """The number type that `precision` means on `device`.

    Returns:
        torch.float32 or torch.bfloat16.
    """
    if precision == "auto":
        return torch.bfloat16 if is_bfloat16_fast(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


@contextmanager
def autocast(dtype: torch.dtype, device: torch.device) -> Iterator[None]:
    """Mixed precision around float32 weights; for float32 nothing but TF32 on GPUs that have it."""
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == torch.bfloat16), _tf32(device):
        yield


@contextmanager
def _tf32(device: torch.device) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        if device.type == "cuda":
            torch.set_float32_matmul_precision(before)
