"""CLINC150, three domains: who learns from which texts."""

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

DOMAINS = ("banking", "travel", "kitchen_and_dining")
LABELLED_PER_INTENT = 50


@dataclass(frozen=True)
class Row:
    """One text."""

    text: str
    label: str
    domain: str


@dataclass(frozen=True)
class Split:
    """The three parts; no text is in two of them."""

    teachers: tuple[Row, ...]
    """With labels, for the teachers alone: 50 an intent."""
    corpus: tuple[Row, ...]
    """The other 50 an intent. MUKA sees the texts only; the gold-label reference also the labels."""
    test: tuple[Row, ...]


def load(folder: Path, seed: int) -> Split:
    """Cut `train` in two, intent by intent; the seed says how. `test` is as it is.

    Raises:
        FileNotFoundError: the data is not there.
    """
    if not (folder / "train.parquet").is_file():
        raise FileNotFoundError(
            f"there is no {folder / 'train.parquet'}: give the folder of CLINC150 with --data"
        )
    by_intent: defaultdict[str, list[Row]] = defaultdict(list)
    for row in _rows(folder / "train.parquet"):
        by_intent[row.label].append(row)
    for label, rows in by_intent.items():
        random.Random(f"{seed}/{label}").shuffle(rows)
    return Split(
        teachers=tuple(row for rows in by_intent.values() for row in rows[:LABELLED_PER_INTENT]),
        corpus=tuple(row for rows in by_intent.values() for row in rows[LABELLED_PER_INTENT:]),
        test=tuple(_rows(folder / "test.parquet")),
    )


def _rows(path: Path) -> Iterator[Row]:
    table = pq.read_table(path, columns=["text", "label", "domain"])
    for row in table.to_pylist():
        if row["domain"] in DOMAINS:
            yield Row(row["text"], row["label"], row["domain"])
