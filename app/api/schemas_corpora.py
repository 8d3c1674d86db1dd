"""Corpora as the contract shows them."""

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.persistence import tables


class LengthDistribution(BaseModel):
    """Of the texts, in characters."""

    min: int
    mean: float
    median: int
    p95: int
    max: int


class CorpusStatistics(BaseModel):
    """What was found while the texts were normalised."""

    characters: LengthDistribution
    dropped_empty: int = Field(description="Texts with nothing but white space.")
    dropped_duplicates: int = Field(description="Texts that were there already, after normalisation.")
    labels: dict[str, int] | None = Field(None, description="Texts a label; null without labels.")
    label_conflicts: int | None = Field(
        None, description="Dropped duplicates with another label than the first, which was kept."
    )


class Corpus(BaseModel):
    """Normalised texts."""

    id: str
    name: str | None = Field(description="The uploaded file's name.")
    texts: int = Field(description="After empty texts and duplicates were dropped.")
    labelled: bool = Field(description="It has gold labels, which only an evaluation reads.")
    content_sha256: str = Field(description="Over texts and labels: the same content is the same corpus.")
    size_bytes: int = Field(description="Of the normalised Parquet file.")
    statistics: CorpusStatistics
    created_at: datetime
    expires_at: datetime | None = Field(description="When it may be removed; null: it is kept.")

    @classmethod
    def of(cls, row: tables.Corpus) -> Self:
        """From its row."""
        return cls.model_validate(row, from_attributes=True)


class PreviewRow(BaseModel):
    """One text, and its label in a labelled corpus."""

    text: str
    label: str | None = None


class CorpusPreview(BaseModel):
    """The first rows."""

    data: list[PreviewRow]


FORM: dict[str, Any] = {
    "type": "object",
    "required": ["file"],
    "additionalProperties": False,
    "properties": {
        "file": {"type": "string", "format": "binary", "description": "Its name's ending tells the format."},
        "format": {"type": "string", "description": "Where the name does not: `csv`, `jsonl.gz` …"},
        "text_column": {"type": "string", "default": "text", "maxLength": 200},
        "label_column": {"type": "string", "maxLength": 200},
        "name": {"type": "string", "description": "Instead of the file's name."},
    },
}
RAW: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
REQUEST_BODY: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": FORM},
        "text/plain": RAW,
        "application/x-ndjson": RAW,
        "text/csv": RAW,
        "text/tab-separated-values": RAW,
        "application/vnd.apache.parquet": RAW,
        "application/octet-stream": RAW,
    },
}
"""Of `POST /corpora`."""
