"""What a model's `config.json` and the names of its files tell about it, without loading anything."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")
_WIDTHS = ("hidden_size", "dim", "d_model", "n_embd")
_POSITIONS = ("max_position_embeddings", "n_positions")
_DROPOUTS = (
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "hidden_dropout",
    "dropout",
    "attention_dropout",
    "seq_classif_dropout",
    "classifier_dropout",
    "classifier_dropout_prob",
    "embd_pdrop",
    "attn_pdrop",
    "resid_pdrop",
    "summary_last_dropout",
    "pooler_dropout",
    "cls_dropout",
    "embedding_dropout",
    "mlp_dropout",
)
"""Under the names that the families of transformers give them."""
_OF_ATTENTION = ("attention_probs_dropout_prob", "attention_dropout", "attn_pdrop")


@dataclass(frozen=True)
class ModelFacts:
    """Sizes and abilities; None where the files do not tell."""

    layers: int | None
    hidden_size: int | None
    max_tokens: int | None
    """Positions that the configuration names; some families keep one or two of them for padding."""
    vocabulary: int | None
    dropout: float | None
    """The largest rate that the configuration names."""
    can_be_sampled: bool | None
    """Dropout is what Monte-Carlo sampling draws from: without it, a teacher scores in one pass. None also
    where there is some in attention alone: most compute that in one operator, which drops in training."""
    tokenizer: str | None
    """`fast`, or the vocabulary of a slow one: `wordpiece`, `byte-pair`, `sentencepiece`, `tiktoken`."""


def model_facts(config: Mapping[str, Any], files: Collection[str]) -> ModelFacts:
    """Read what is there; nothing in a configuration that anybody can upload is taken for granted."""
    found = {key: rate for key in _DROPOUTS if (rate := _rate(config.get(key))) is not None}
    can_be_sampled = any(found.values()) if found else None
    if can_be_sampled and not any(rate for key, rate in found.items() if key not in _OF_ATTENTION):
        can_be_sampled = None
    return ModelFacts(
        layers=_count(config, LAYERS),
        hidden_size=_count(config, _WIDTHS),
        max_tokens=_count(config, _POSITIONS),
        vocabulary=_count(config, ("vocab_size",)),
        dropout=max(found.values(), default=None),
        can_be_sampled=can_be_sampled,
        tokenizer=_tokenizer(files),
    )


def _count(config: Mapping[str, Any], keys: Collection[str]) -> int | None:
    counts = (config.get(key) for key in keys)
    return next((count for count in counts if type(count) is int and 0 < count < 2**53), None)


def _rate(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return None
    return float(value)


def _tokenizer(files: Collection[str]) -> str | None:
    if "tokenizer.json" in files:
        return "fast"
    if "vocab.txt" in files:
        return "wordpiece"
    if {"vocab.json", "merges.txt"} <= set(files):
        return "byte-pair"
    kinds = {".model": "sentencepiece", ".tiktoken": "tiktoken"}
    return next((kind for ending, kind in kinds.items() if any(f.endswith(ending) for f in files)), None)
