"""One forward pass of a sequence classifier, with pooled sentence features where a method wants them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Answer:
    """What a classifier says about b texts.

    Attributes:
        logits: [b, C], in the type the model computes in.
        features: [b, width], the last hidden states averaged over the text's tokens, or None.
    """

    logits: Tensor
    features: Tensor | None = None


def forward(model: PreTrainedModel, batch: Mapping[str, Tensor], *, features: bool = False) -> Answer:
    """Run a classifier on a batch: `input_ids` [b, L] and, where it is padded, `attention_mask` [b, L]."""
    if not features:
        return Answer(model(**batch).logits)
    encoder = model.base_model
    if encoder is model or model.config.is_encoder_decoder:
        output = model(**batch, output_hidden_states=True)
        states = (getattr(output, "hidden_states", None) or output.encoder_hidden_states)[-1]
    else:
        output, states = _with_last_states(model, encoder, batch)
    return Answer(output.logits, mean_pool(states, batch.get("attention_mask")))


def _with_last_states(
    model: PreTrainedModel, encoder: nn.Module, batch: Mapping[str, Tensor]
) -> tuple[Any, Tensor]:
    """Output, and the encoder's last hidden states [b, L, width], without keeping those of all layers."""
    found = []
    hook = encoder.register_forward_hook(lambda _module, _inputs, output: found.append(output[0]))
    try:
        return model(**batch), found[-1]
    finally:
        hook.remove()


def mean_pool(states: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Average of hidden states [b, L, width] over the tokens that the mask [b, L] marks: [b, width].

    Over all positions, padding included, where these are not tokens any more (Funnel pools them).
    """
    if attention_mask is None or attention_mask.shape[1] != states.shape[1]:
        return states.mean(1)
    mask = attention_mask.to(states.dtype).unsqueeze(-1)
    return (states * mask).sum(1) / mask.sum(1).clamp_min(1)


def feature_width(model: PreTrainedModel) -> int:
    """Width of `Answer.features`."""
    width = getattr(model.config, "hidden_size", None) or getattr(model.config, "d_model", None)
    if not isinstance(width, int):
        raise TypeError(f"{type(model).__name__}: the configuration tells no hidden size")
    return width


def usable_positions(model: PreTrainedModel) -> int | None:
    """Tokens that the model's positions reach, or None where nothing limits them.

    RoBERTa and its like count positions from the padding index on, so two of their 514 are lost.
    """
    limits = [
        module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1)
        for name, module in model.named_modules()
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding)
    ]
    configured = getattr(model.config, "max_position_embeddings", None)
    return min(limits) if limits else configured if isinstance(configured, int) and configured > 0 else None
