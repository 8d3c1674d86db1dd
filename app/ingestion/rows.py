"""What every reader of a corpus yields: rows, and faults where a row cannot be read."""

import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.errors import Fault


class Row(NamedTuple):
    """One text as it was sent."""

    position: int
    """Line, row or index: where the user finds it again."""
    text: str | None
    """Null counts as empty."""
    label: str | None = None


Rows = Iterator[Row | Fault]


@dataclass(frozen=True)
class Columns:
    """Which columns to read of formats that have them."""

    text: str = "text"
    label: str | None = None

    @property
    def all(self) -> list[str]:
        """Both, or the one."""
        return [self.text] if self.label is None else [self.text, self.label]


Locate = Callable[[int], str]
"""A row's position as a fault's pointer."""


def at_line(line: int) -> str:
    """Of text files."""
    return f"line {line}"


def at_row(row: int) -> str:
    """Of Parquet, counted from 1."""
    return f"row {row}"


def at_inline(index: int) -> str:
    """Of a request's body."""
    return f"/corpus/texts/{index}"


def missing_columns(wanted: Columns, there: list[str]) -> str | None:
    """A sentence about columns that are not there; None when all are."""
    missing = [name for name in wanted.all if name not in there]
    if not missing:
        return None
    columns = ", ".join(repr(name[:100]) for name in there[:50]) or "none"
    named = " and ".join(repr(name) for name in missing)
    return f"there is no column {named}; there are: {columns}. State `text_column` (and `label_column`)"


def normalise(text: str) -> str:
    """Unicode NFC, trimmed."""
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    return text.strip()
