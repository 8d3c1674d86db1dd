"""Texts as flat token ids, and batches that waste little padding (section 9.1)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from worker.muka.columns import joined
from worker.muka.errors import CorpusEmptyError
from worker.muka.model_folder import quiet_transformers
from worker.muka.seeds import derive_seed

Rows = NDArray[np.int64]

_TOKENISE_AT_ONCE = 1024
_GROUPED_BATCHES = 50


@dataclass(frozen=True)
class TokenisedTexts:
    """n texts as one flat array of token ids; text i is ids[offsets[i]:offsets[i+1]].

    Attributes:
        ids: int32, every text's tokens one after another, specials included.
        offsets: int64 [n+1].
        pad_id: Fills the padding of a batch.
        pads_left: Whether padding comes before the tokens.
    """

    ids: NDArray[np.int32]
    offsets: NDArray[np.int64]
    pad_id: int
    pads_left: bool

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens of each text: int64 [n], all >= 1."""
        return np.diff(self.offsets)

    def longest(self, rows: Rows) -> int:
        """Tokens of the longest of the texts `rows`."""
        return int((self.offsets[rows + 1] - self.offsets[rows]).max())

    def collate(self, rows: Rows, device: torch.device, *, width: int | None = None) -> dict[str, Tensor]:
        """The texts `rows` padded to the longest of them.

        Args:
            rows: Which texts.
            device: Where to.
            width: Pad to so many tokens, and mask always: batches of different texts have one shape then.

        Returns:
            `input_ids` and, where there is padding, `attention_mask`, int64 [len(rows), width], on
            `device`. Attention is faster without a mask, and models take none for all ones.
        """
        starts, ends = self.offsets[rows], self.offsets[rows + 1]
        lengths = ends - starts
        columns = np.arange(width or lengths.max())
        if width is None and lengths.min() == len(columns):
            return {"input_ids": to_device(torch.from_numpy(self._ids_at(starts[:, None] + columns)), device)}
        first = len(columns) - lengths if self.pads_left else np.zeros_like(lengths)
        mask = (columns >= first[:, None]) & (columns < (first + lengths)[:, None])
        places = np.where(mask, (starts - first)[:, None] + columns, 0)
        ids = np.where(mask, self._ids_at(places), self.pad_id)
        batch = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
        return {name: to_device(torch.from_numpy(array), device) for name, array in batch.items()}

    def _ids_at(self, places: Rows) -> Rows:
        return self.ids[places].astype(np.int64)


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int, folder: Path | None = None
) -> TokenisedTexts:
    """Tokenise texts with specials, truncated to `max_length` tokens.

    A text without any token (possible where a tokenizer adds no specials) becomes one padding token,
    since no model answers an empty sequence.

    Args:
        tokenizer: Of the model.
        texts: n of them.
        max_length: Tokens of a text, specials included.
        folder: On whose disk the ids lie; None keeps them in memory.

    Raises:
        CorpusEmptyError: There are no texts.
    """
    if not texts:
        raise CorpusEmptyError("there are no texts")
    pad_id = padding_id(tokenizer)
    lengths: list[NDArray[np.int64]] = []

    def flat_ids() -> Iterator[NDArray[np.int32]]:
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            chunk = list(texts[start : start + _TOKENISE_AT_ONCE])
            encoded = tokenizer(chunk, truncation=True, max_length=max_length, return_attention_mask=False)
            rows: list[list[int]] = encoded["input_ids"]
            if not all(rows):
                rows = [row or [pad_id] for row in rows]
            lengths.append(np.fromiter(map(len, rows), dtype=np.int64))
            yield np.fromiter(chain.from_iterable(rows), dtype=np.int32)

    with quiet_transformers():
        ids = joined(flat_ids(), folder)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))])
    return TokenisedTexts(ids, offsets, pad_id, tokenizer.padding_side == "left")


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id to pad with: the tokenizer's own, else its end of text, else 0; the mask hides it anyway."""
    for candidate in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(candidate, int):
            return candidate
    return 0


def longest_first(lengths: NDArray[np.int64]) -> Rows:
    """Row numbers by falling length, equal lengths in their order: too little memory shows at once."""
    return np.argsort(-lengths, kind="stable")


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, *, seed: int, epoch: int) -> list[Rows]:
    """Shuffled batches of similar lengths, a function of (seed, epoch) alone.

    Texts are shuffled, sorted by length within groups of 50 batches, cut, and the batches shuffled.

    Returns:
        ceil(n / batch_size) batches; every row is in exactly one.
    """
    random = np.random.default_rng(derive_seed(seed, "order", epoch))
    shuffled = random.permutation(len(lengths))
    group = batch_size * _GROUPED_BATCHES
    batches: list[Rows] = []
    for start in range(0, len(shuffled), group):
        rows = shuffled[start : start + group]
        ordered = rows[longest_first(lengths[rows])]
        batches += [ordered[at : at + batch_size] for at in range(0, len(ordered), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]
