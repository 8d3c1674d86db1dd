"""Attention as the kernels of a device like it (section 9.4).

On the CPU PyTorch's kernel takes bfloat16 scores 16 at a time, and the rest of a row one by one. So keys are
added up to the next multiple of 16, and masked: 25 tokens take three quarters of the time then. It changes
nothing else: a masked key has a weight of exactly zero.

On a GPU see `worker.muka.gpu_attention`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from worker.muka.gpu_attention import gpu_attention

_NAME = "muka_even_keys"
_KEYS = 16
_OTHER_ARGUMENTS = ("position_bias", "cache")


def suited_attention(model: PreTrainedModel) -> AbstractContextManager[None]:
    """Within the block the model's attention runs on the kernels that suit its device."""
    return gpu_attention(model) if model.device.type == "cuda" else even_attention(model)


@contextmanager
def even_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block a bfloat16 model on the CPU that uses PyTorch's attention uses it evenly."""
    config: Any = model.config
    if config._attn_implementation != "sdpa" or (model.dtype, model.device.type) != (torch.bfloat16, "cpu"):  # noqa: SLF001
        yield
        return
    AttentionInterface.register(_NAME, _even_attention)
    AttentionMaskInterface.register(_NAME, sdpa_mask)
    config._attn_implementation = _NAME  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"  # noqa: SLF001


def _even_attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **others: Any
) -> tuple[Tensor, None]:
    missing = -key.shape[-2] % _KEYS
    if missing and _is_plain(module, others):
        attention_mask = _even_mask(query, key, attention_mask, missing)
        key, value = (functional.pad(states, (0, 0, 0, missing)) for states in (key, value))
    return sdpa_attention_forward(module, query, key, value, attention_mask, **others)


def _is_plain(module: nn.Module, others: dict[str, Any]) -> bool:
    causal = others.get("is_causal") or getattr(module, "is_causal", True)  # as transformers reads it
    return not causal and all(others.get(name) is None for name in _OTHER_ARGUMENTS)


def _even_mask(query: Tensor, key: Tensor, mask: Tensor | None, missing: int) -> Tensor:
    """The mask [b or 1, 1, queries, keys + missing], False or lowest for the keys that are added."""
    if mask is None:
        mask = torch.ones(1, 1, 1, key.shape[-2], dtype=torch.bool)
    lowest = False if mask.dtype == torch.bool else torch.finfo(mask.dtype).min
    padded = functional.pad(mask, (0, missing), value=lowest)
    return padded.expand(len(query), -1, query.shape[-2], -1)
