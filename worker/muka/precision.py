"""Which number type is faster on a device: the meaning of precision "auto"."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from worker.muka.recipe import Precision


def _cpu_computes_bfloat16() -> bool:
    """Whether matrix products in bfloat16 are an instruction of this CPU, not an emulation.

    Measured on an Intel Xeon with AMX-BF16, 2 threads, MiniLM-L6 (22 M parameters):

    - inference, microseconds a token at 12 and 64 tokens a text, batches of 4,096 tokens: float32 96
      and 86; autocast 35 and 26; weights cast to bfloat16 29 and 31. So teachers are cast when they
      are loaded, which takes half the memory too.
    - training with autocast, milliseconds a step of 32 texts: 151 (float32) and 166 at 12 tokens,
      945 and 391 at 64, 1,555 and 930 at 128. So it never costs much and soon halves the time.
    """
    has_amx = getattr(torch.cpu, "_is_amx_tile_supported", None)
    has_avx512 = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool((has_amx and has_amx()) or (has_avx512 and has_avx512()))


def is_bfloat16_fast(device: torch.device) -> bool:
    """Whether bfloat16 is computed natively: Ampere GPUs and later, CPUs with AMX or AVX512-BF16."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    return device.type == "cpu" and _cpu_computes_bfloat16()


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
