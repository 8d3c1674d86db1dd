"""Attention on a GPU by PyTorch's fused kernels (section 9.4).

cuDNN's, which PyTorch prefers on Hopper GPUs, are compiled for every shape of a batch when it first comes: a
third of a second each on an H200, and no two shards have the same shapes. The others take any shape.

MPNet adds a bias of relative positions to its scores, and transformers has it write all scores out, six times
a layer. The fused kernel takes the bias as a mask. Some versions of transformers compute the places of that
bias on the CPU, too, and wait for the GPU to take them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import PreTrainedModel

from worker.muka.patching import replaced_forwards

_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def any_shape() -> AbstractContextManager[None]:
    """Within the block no kernel is compiled for the shapes that it meets."""
    return sdpa_kernel(_KERNELS)


@contextmanager
def gpu_attention(model: PreTrainedModel) -> Iterator[None]:
    """Within the block the model's attention takes PyTorch's kernels, MPNet's too."""
    with any_shape(), fused_mpnet(model):
        yield


@contextmanager
def fused_mpnet(model: PreTrainedModel) -> Iterator[None]:
    """Within the block an MPNet computes its attention by one operator; other models are left alone.

    Its dropout is drawn by the operator, from torch's generators, where the layer's is in train mode.
    """
    if model.config.model_type != "mpnet":
        yield
        return
    from transformers.models.mpnet.modeling_mpnet import MPNetSelfAttention  # noqa: PLC0415  (few need it)

    layers = [module for module in model.modules() if type(module) is MPNetSelfAttention]
    config: Any = model.config
    encoder: Any = model.base_model.encoder
    before, bias = config._attn_implementation, _Bias(len(layers))  # noqa: SLF001
    config._attn_implementation = "sdpa"  # noqa: SLF001  (a mask of truth values, without a copy from the CPU)
    encoder.compute_position_bias = partial(_position_bias, encoder, bias)
    try:
        with replaced_forwards((layer, partial(_attend, layer, bias)) for layer in layers):
            yield
    finally:
        config._attn_implementation = before  # noqa: SLF001
        del encoder.compute_position_bias


def _position_bias(encoder: Any, joined: "_Bias", hidden_states: Tensor) -> Tensor:
    """What `MPNetEncoder.compute_position_bias` does, once for all texts: [1, heads, L, L]."""
    joined.begin()
    places = torch.arange(hidden_states.shape[1], device=hidden_states.device)
    buckets = encoder.relative_position_bucket(places[None, :] - places[:, None])
    values: Tensor = encoder.relative_attention_bias(buckets)
    return values.permute(2, 0, 1).unsqueeze(0)


class _Bias:
    """Bias of positions and mask as one tensor, made by the first layer of a pass and let go by the last."""

    def __init__(self, layers: int) -> None:
        self._layers = layers
        self._asked = 0
        self._whole: Tensor | None = None

    def begin(self) -> None:
        """A new pass; the last one may have died under way, for lack of memory."""
        self._asked, self._whole = 0, None

    def of(self, position_bias: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        """[b or 1, heads, L, L]."""
        if self._asked == 0:
            self._whole = _joined(position_bias, mask, dtype)
        whole, self._asked = self._whole, (self._asked + 1) % self._layers
        if self._asked == 0:
            self._whole = None
        return whole


def _joined(position_bias: Tensor | None, mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    if position_bias is None:
        return mask
    position_bias = position_bias.to(dtype)
    if mask is None:
        return position_bias
    if mask.dtype == torch.bool:
        return position_bias.masked_fill(~mask, torch.finfo(dtype).min)
    return position_bias + mask.to(dtype)


def _attend(
    layer: Any,
    bias: _Bias,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    *,
    output_attentions: bool = False,
    **_others: Any,
) -> tuple[Tensor, ...]:
    """What `MPNetSelfAttention` does."""
    if output_attentions:
        raise NotImplementedError("the fused kernel tells no attention")
    shape = (*hidden_states.shape[:-1], layer.num_attention_heads, layer.attention_head_size)
    q, k, v = (project(hidden_states).view(shape).transpose(1, 2) for project in (layer.q, layer.k, layer.v))
    dropout: nn.Dropout = layer.dropout
    mixed = scaled_dot_product_attention(
        q,
        k,
        v,
        attn_mask=_expanded(bias.of(position_bias, attention_mask, q.dtype), len(q)),
        dropout_p=dropout.p if dropout.training else 0.0,
    )
    return (layer.o(mixed.transpose(1, 2).flatten(2)),)


def _expanded(bias: Tensor | None, texts: int) -> Tensor | None:
    return None if bias is None else bias.expand(texts, -1, -1, -1)
