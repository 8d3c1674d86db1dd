"""How much arithmetic a model is, and how fast a device multiplies: what speeds are compared with."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import PreTrainedModel

Clock = Callable[[], float]


def forward_flops(model: PreTrainedModel, lengths: NDArray[np.int64]) -> float:
    """Floating point operations of one pass over texts of these lengths, without padding: products only.

    Two for each weight of the encoder's linear layers and token, and 4·L·width for each token and layer of
    attention. Embeddings, norms, activations, pooler and head are left out.
    """
    base: Any = model.base_model
    encoder = base.encoder if hasattr(base, "encoder") else base.transformer
    weights = sum(layer.weight.numel() for layer in encoder.modules() if isinstance(layer, nn.Linear))
    attention = 4.0 * model.config.num_hidden_layers * model.config.hidden_size
    return float((2.0 * weights * lengths + attention * lengths.astype(float) ** 2).sum())


def matmul_rate(
    size: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    seconds: float = 1.0,
    clock: Clock = time.perf_counter,
) -> float:
    """Floating point operations a second of a product of two square matrices, median of repeats."""
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 5 or time.perf_counter() - started < seconds:
        times.append(timed(lambda: a @ b, device, clock))
    return 2.0 * size**3 / statistics.median(times)


def timed(action: Callable[[], object], device: torch.device, clock: Clock = time.perf_counter) -> float:
    """Seconds of an action, the GPU's work included."""
    synchronise(device)
    started = clock()
    action()
    synchronise(device)
    return clock() - started


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, where there is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
