"""Distribution of text lengths, exact, in memory that depends on the longest text only."""

from collections import Counter
from typing import Any


def length_distribution(lengths: Counter[int]) -> dict[str, Any]:
    """Of characters: min, mean, median, p95, max. `lengths` counts the texts of each length."""
    total = lengths.total()
    return {
        "min": min(lengths),
        "mean": round(sum(length * count for length, count in lengths.items()) / total, 2),
        "median": _quantile(lengths, total, 0.5),
        "p95": _quantile(lengths, total, 0.95),
        "max": max(lengths),
    }


def _quantile(lengths: Counter[int], total: int, share: float) -> int:
    """The smallest length which at least this share of the texts does not exceed."""
    seen = 0
    for length in sorted(lengths):
        seen += lengths[length]
        if seen >= share * total:
            return length
    return max(lengths)
