"""What is known of a plan's texts before anything is read or stored; tokens are estimated from characters."""

from dataclasses import dataclass
from itertools import pairwise

from app.domain.recipe import HubDataset, InlineTexts
from app.persistence.tables import Corpus

CHARACTERS_PER_TOKEN = 4.0
"""Of English prose in word-piece vocabularies; other languages have fewer, so estimates err low there."""

_SPECIAL_TOKENS = 2
_QUANTILES = (("min", 0.0), ("median", 0.5), ("p95", 0.95), ("max", 1.0))


@dataclass(frozen=True)
class CorpusFacts:
    """Numbers of a corpus; None where only reading it would tell."""

    source: str
    """`corpus`, `texts` or `dataset`."""
    id: str | None = None
    texts: int | None = None
    characters: int | None = None
    tokens: int | None = None
    """As the teachers read them: estimated, and cut at `max_length`."""
    truncated_share: float | None = None
    """Estimated share of the texts that are longer than `max_length` tokens."""


def of_stored(corpus: Corpus, max_length: int) -> CorpusFacts:
    """From the distribution of lengths that is kept with an uploaded corpus."""
    lengths = corpus.statistics.get("characters")
    if not lengths:
        return CorpusFacts("corpus", corpus.id, corpus.texts)
    characters = round(lengths["mean"] * corpus.texts)
    points = [(float(lengths[name]), share) for name, share in _QUANTILES]
    limit = _characters_read(max_length)
    mean_read = min(lengths["mean"], limit) / CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS
    return CorpusFacts(
        source="corpus",
        id=corpus.id,
        texts=corpus.texts,
        characters=characters,
        tokens=round(mean_read * corpus.texts),
        truncated_share=round(1 - _share_up_to(limit, points), 3),
    )


def of_inline(spec: InlineTexts, max_length: int) -> CorpusFacts:
    """Of the texts in the request, duplicates and empty ones left out as they would be."""
    texts = dict.fromkeys(text.strip() for text in spec.texts if text.strip())
    limit = _characters_read(max_length)
    read = sum(min(len(text), limit) / CHARACTERS_PER_TOKEN + _SPECIAL_TOKENS for text in texts)
    longer = sum(len(text) > limit for text in texts)
    return CorpusFacts(
        source="texts",
        texts=len(texts),
        characters=sum(map(len, texts)),
        tokens=round(read),
        truncated_share=round(longer / len(texts), 3) if texts else None,
    )


def of_dataset(_spec: HubDataset) -> CorpusFacts:
    """Nothing: a plan does not download texts."""
    return CorpusFacts("dataset")


def _characters_read(max_length: int) -> float:
    return max(1, max_length - _SPECIAL_TOKENS) * CHARACTERS_PER_TOKEN


def _share_up_to(limit: float, points: list[tuple[float, float]]) -> float:
    """Share of the texts with at most `limit` characters, straight lines between the known quantiles."""
    if limit >= points[-1][0]:
        return 1.0
    for (low, below), (high, above) in pairwise(points):
        if low <= limit < high:
            return below + (above - below) * (limit - low) / (high - low)
    return 0.0
