"""Rows become a corpus: normalised, without empty texts and duplicates, hashed, counted, written."""

import hashlib
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.domain import labels as label_names
from app.domain.errors import Fault, InvalidCorpusError, PayloadTooLargeError
from app.ingestion.distinct import DistinctTexts
from app.ingestion.faults import FaultLog
from app.ingestion.parquet_writer import ParquetWriter
from app.ingestion.rows import Locate, Row, Rows, normalise
from app.ingestion.statistics import length_distribution

MAX_LABELS = 10_000
MAX_LABEL_CHARS = 256


@dataclass(frozen=True)
class Limits:
    """Of one corpus."""

    texts: int
    text_chars: int


@dataclass(frozen=True)
class NormalisedCorpus:
    """What is known of a corpus once it is written."""

    texts: int
    labelled: bool
    content_sha256: str
    statistics: dict[str, Any]


def write_corpus(
    rows: Rows, target: Path, limits: Limits, locate: Locate, *, labelled: bool, whole: str = "file"
) -> NormalisedCorpus:
    """Read all rows and write the kept ones to `target`. `whole` points to the corpus itself.

    Raises:
        InvalidCorpusError: With the first ten faults; or no text is left.
        PayloadTooLargeError: More texts than the limit.
    """
    with ParquetWriter(target, labelled=labelled) as writer:
        state = _State(limits, locate, labelled, whole)
        for text, label in state.kept(rows):
            writer.add(text, label)
    return state.finish()


@dataclass
class _State:
    limits: Limits
    locate: Locate
    labelled: bool
    whole: str
    faults: FaultLog = field(default_factory=FaultLog)
    seen: int = 0
    empty: int = 0
    conflicts: int = 0
    lengths: Counter[int] = field(default_factory=Counter)
    distinct: DistinctTexts = field(default_factory=DistinctTexts)
    label_ids: dict[str, int] = field(default_factory=dict)
    label_of: "array[int]" = field(default_factory=lambda: array("I"))
    """Of every kept text, for the count of conflicts."""

    def __post_init__(self) -> None:
        self.content = hashlib.sha256(b"text,label\n" if self.labelled else b"text\n")

    def kept(self, rows: Rows) -> Iterator[tuple[str, str | None]]:
        """The rows that belong into the corpus; nothing more comes after the first fault."""
        for row in rows:
            if self.seen >= self.limits.texts and isinstance(row, Row):
                self._refuse_more()
            found = row if isinstance(row, Fault) else self._take(row)
            if isinstance(found, Fault):
                self.faults.add(found)
            elif found is not None and not self.faults.total:
                yield found

    def _refuse_more(self) -> None:
        self.faults.refuse()
        raise PayloadTooLargeError(
            f"the corpus has more than {self.limits.texts:,} texts, the limit (MUKA_MAX_TEXTS)"
        )

    def _take(self, row: Row) -> tuple[str, str | None] | Fault | None:
        self.seen += 1
        text = normalise(row.text or "")
        if not text:
            self.empty += 1
            return None
        if len(text) > self.limits.text_chars:
            detail = f"the text has {len(text)} characters; the limit is {self.limits.text_chars}"
            return Fault(self.locate(row.position), "text_too_long", detail)
        if "\0" in text:
            return Fault(self.locate(row.position), "not_text", "the text has a NUL character")
        label = label_names.canonical(row.label or "") if self.labelled else None
        if label is not None and (fault := self._label_fault(label, row.position)):
            return fault
        try:
            encoded = text.encode()
            encoded_label = (label or "").encode()
        except UnicodeEncodeError:
            return Fault(self.locate(row.position), "not_utf8", "half of a surrogate pair is no character")
        return self._new(text, encoded, label, encoded_label)

    def _label_fault(self, label: str, position: int) -> Fault | None:
        if not label or "\0" in label:
            detail = "the label is empty; every text of a labelled corpus needs one"
        elif len(label) > MAX_LABEL_CHARS:
            detail = f"the label has {len(label)} characters; the limit is {MAX_LABEL_CHARS}"
        elif label not in self.label_ids and len(self.label_ids) >= MAX_LABELS:
            detail = f"more than {MAX_LABELS} different labels; is this the right column?"
        else:
            return None
        return Fault(self.locate(position), "label_invalid", detail)

    def _new(
        self, text: str, encoded: bytes, label: str | None, encoded_label: bytes
    ) -> tuple[str, str | None] | None:
        number, is_new = self.distinct.add(encoded)
        label_id = 0 if label is None else self.label_ids.setdefault(label, len(self.label_ids))
        if not is_new:
            self.conflicts += self.labelled and self.label_of[number] != label_id
            return None
        if self.labelled:
            self.label_of.append(label_id)
        self.lengths[len(text)] += 1
        self.content.update(b"%d,%d:" % (len(encoded), len(encoded_label)) + encoded + encoded_label)
        return text, label

    def finish(self) -> NormalisedCorpus:
        """What was found; raises when the corpus is not usable."""
        self.faults.refuse()
        kept = len(self.distinct)
        duplicates = self.seen - self.empty - kept
        if not kept:
            what = f"all of its {self.seen} texts are empty" if self.seen else "there is no text in it"
            raise _unusable(self.whole, "empty_corpus", f"the corpus is empty: {what}")
        if kept == 1 and duplicates:
            what = f"of {self.seen} texts {duplicates} are duplicates and {self.empty} are empty"
            raise _unusable(
                self.whole, "all_duplicates", f"the corpus is all duplicates: {what}; 1 distinct text is left"
            )
        statistics: dict[str, Any] = {
            "characters": length_distribution(self.lengths),
            "dropped_empty": self.empty,
            "dropped_duplicates": duplicates,
        }
        if self.labelled:
            statistics |= {"labels": self._label_counts(), "label_conflicts": self.conflicts}
        return NormalisedCorpus(kept, self.labelled, self.content.hexdigest(), statistics)

    def _label_counts(self) -> dict[str, int]:
        counts = Counter(self.label_of)
        return {label: counts[number] for label, number in self.label_ids.items() if counts[number]}


def _unusable(pointer: str, code: str, detail: str) -> InvalidCorpusError:
    faults = [Fault(pointer, code, detail)]
    return InvalidCorpusError(f"{detail}; nothing was stored. Send texts to learn from", faults=faults)
