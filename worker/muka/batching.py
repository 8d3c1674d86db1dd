"""Texts as flat token ids, and batches that waste little padding (section 9.1)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

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

    def collate(self, rows: Rows, device: torch.device) -> dict[str, Tensor]:
        """The texts `rows` padded to the longest of them.

        Returns:
            `input_ids` and `attention_mask`, int64 [len(rows), longest], on `device`.
        """
        lengths = self.lengths[rows]
        columns = np.arange(lengths.max())
        mask = columns >= (lengths.max() - lengths)[:, None] if self.pads_left else columns < lengths[:, None]
        ids = np.full(mask.shape, self.pad_id, dtype=np.int64)
        ids[mask] = np.concatenate([self.ids[self.offsets[row] : self.offsets[row + 1]] for row in rows])
        batch = {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy(mask.astype(np.int64)),
        }
        return {name: to_device(tensor, device) for name, tensor in batch.items()}


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy to the device; to a GPU from pinned memory, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def tokenise(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int) -> TokenisedTexts:
    """Tokenise texts with specials, truncated to `max_length` tokens.

    A text without any token (possible where a tokenizer adds no specials) becomes one padding token,
    since no model answers an empty sequence.

    Raises:
        CorpusEmptyError: There are no texts.
    """
    if not texts:
        raise CorpusEmptyError("there are no texts")
    pad_id = padding_id(tokenizer)
    pieces: list[NDArray[np.int32]] = []
    with quiet_transformers():
        for start in range(0, len(texts), _TOKENISE_AT_ONCE):
            chunk = list(texts[start : start + _TOKENISE_AT_ONCE])
            encoded = tokenizer(chunk, truncation=True, max_length=max_length, return_attention_mask=False)
            pieces += [np.asarray(ids or [pad_id], dtype=np.int32) for ids in encoded["input_ids"]]
    offsets = np.zeros(len(pieces) + 1, dtype=np.int64)
    np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
    return TokenisedTexts(np.concatenate(pieces), offsets, pad_id, tokenizer.padding_side == "left")


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
