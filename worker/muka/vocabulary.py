"""The student's word embeddings while it trains: only the rows of tokens that the corpus has.

Half of a small encoder is its word embeddings, and few of their 30,000 rows ever get a gradient. Gradient,
norm, clipping and AdamW over the others cost a third of a training step on a CPU, to do nothing but weight
decay; that is made up for in `write_back`, with the very same multiplications.
"""

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from worker.muka.columns import spans

_ROWS_AT_ONCE = 256
"""Rows that fit into a processor's cache while they are decayed."""

_TOKENS_AT_ONCE = 1 << 20


class UsedVocabulary:
    """A table of its own for the tokens that occur.

    Attributes:
        embedding: The model's.
        weight: The rows that are trained, [tokens that occur, width].
    """

    def __init__(self, embedding: nn.Embedding, ids: NDArray[np.int32], pad_id: int) -> None:
        found = np.zeros(embedding.num_embeddings, dtype=bool)
        for span in spans(len(ids), _TOKENS_AT_ONCE):
            found[ids[span]] = True
        found[pad_id] = True
        occurs = torch.from_numpy(found)
        device = embedding.weight.device
        self.embedding = embedding
        self._used, self._unused = (rows.nonzero().flatten().to(device) for rows in (occurs, ~occurs))
        self._places = (torch.cumsum(occurs, 0) - 1).clamp_min(0).to(device)
        self._padding = embedding.padding_idx
        if self._padding is not None:
            self._padding = int(self._places[self._padding]) if occurs[self._padding] else None
        self.weight = nn.Parameter(embedding.weight.detach()[self._used])
        self._factors: list[float] = []

    @classmethod
    def of(cls, model: PreTrainedModel, ids: NDArray[np.int32], pad_id: int) -> Self | None:
        """For a model with ordinary word embeddings that are nothing else's weights; None for others."""
        embedding: Any = model.get_input_embeddings()
        ordinary = type(embedding) is nn.Embedding and embedding.max_norm is None
        if not ordinary or embedding.scale_grad_by_freq or not embedding.weight.requires_grad:
            return None
        owners = [name for name, p in model.named_parameters(remove_duplicate=False) if p is embedding.weight]
        return cls(embedding, ids, pad_id) if len(owners) == 1 else None

    def read(self) -> None:
        """Take the rows from the model, after its weights were replaced."""
        self.weight.data.copy_(self.embedding.weight.detach()[self._used])

    @property
    def forward(self) -> Callable[[Tensor], Tensor]:
        """Stands in for the embedding's own."""
        return lambda ids: functional.embedding(self._places[ids], self.weight, self._padding)

    def decay(self, factor: float) -> None:
        """A step was done: AdamW multiplies every weight by this, also those without a gradient."""
        self._factors.append(factor)

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the model's embeddings up to date."""
        table = self.embedding.weight
        table[self._used] = self.weight
        at_once = _ROWS_AT_ONCE if table.device.type == "cpu" else max(1, len(self._unused))
        for rows in torch.split(self._unused, at_once):
            block = table[rows]
            for factor in self._factors:
                block.mul_(factor)
            table[rows] = block
        self._factors = []
