"""What the teachers of the quality benchmark are made of: MiniLM, and MiniLM in other shapes.

No other encoder is at hand without a hub. But ELECTRA's and RoBERTa's layers are BERT's: with MiniLM's
weights they are models of another architecture (class, embeddings, head, positions) that know as much.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    ElectraConfig,
    ElectraModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
)

_POSITIONS = "embeddings.position_embeddings.weight"


def make_encoder(kind: str, minilm: Path, target: Path, *, seed: int) -> Path:
    """The folder of an encoder of that kind; made in `target` where it is not MiniLM itself.

    Args:
        kind: `minilm`, or one of `KINDS`.
        minilm: Folder of MiniLM.
        target: Where to.
        seed: Of what is drawn anew.
    """
    if kind == "minilm":
        return minilm
    model = KINDS[kind](AutoModel.from_pretrained(minilm), seed)
    model.save_pretrained(target)
    AutoTokenizer.from_pretrained(minilm).save_pretrained(target)
    return target


def _plain(bert: Any, seed: int) -> PreTrainedModel:
    """No sentence encoder: its last two layers are drawn anew."""
    torch.manual_seed(seed)
    for module in bert.encoder.layer[-2:].modules():
        if isinstance(module, nn.Linear | nn.LayerNorm):
            module.reset_parameters()
    model: PreTrainedModel = bert
    return model


def _electra(bert: PreTrainedModel, _seed: int) -> PreTrainedModel:
    config = ElectraConfig(embedding_size=bert.config.hidden_size, **_shape(bert))
    return _with_weights(ElectraModel(config), bert.state_dict())


def _roberta(bert: PreTrainedModel, _seed: int) -> PreTrainedModel:
    """Its positions are counted from the one behind the padding's on."""
    shape = _shape(bert)
    shape["max_position_embeddings"] += 1
    model = RobertaModel(RobertaConfig(**shape), add_pooling_layer=False)
    weights = bert.state_dict()
    weights[_POSITIONS] = torch.cat([torch.zeros_like(weights[_POSITIONS][:1]), weights[_POSITIONS]])
    return _with_weights(model, weights)


def _shape(bert: PreTrainedModel) -> dict[str, Any]:
    names = (
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
        "layer_norm_eps",
        "pad_token_id",
    )
    return {name: getattr(bert.config, name) for name in names}


def _with_weights(model: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """All of its weights must be there; the pooler, which it has not, may be left over."""
    missing, left_over = model.load_state_dict(weights, strict=False)
    strange = [name for name in left_over if not name.startswith("pooler.")]
    if missing or strange:
        raise ValueError(f"{type(model).__name__}: lacks {missing}, does not know {strange}")
    return model


KINDS: Mapping[str, Callable[[PreTrainedModel, int], PreTrainedModel]] = {
    "plain": _plain,
    "electra": _electra,
    "roberta": _roberta,
}
