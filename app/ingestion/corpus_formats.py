"""Which format a corpus file has: said by the user, its name or its media type; never guessed."""

from dataclasses import dataclass
from enum import StrEnum

from app.domain.errors import UnsupportedFormatError
from app.ingestion.decompression import Compression


class Layout(StrEnum):
    """How texts are laid out in a file."""

    TXT = "txt"
    """One text a line."""
    JSONL = "jsonl"
    """One JSON object a line."""
    CSV = "csv"
    """Comma-separated, with a header."""
    TSV = "tsv"
    """Tab-separated, with a header."""
    PARQUET = "parquet"


@dataclass(frozen=True)
class CorpusFormat:
    """A layout, and the compression around the whole file."""

    layout: Layout
    compression: Compression = Compression.NONE


_LAYOUTS = {layout.value: layout for layout in Layout} | {"ndjson": Layout.JSONL}
_COMPRESSIONS = {"gz": Compression.GZIP, "zst": Compression.ZSTD}
_MEDIA_TYPES = {
    "text/plain": Layout.TXT,
    "application/jsonl": Layout.JSONL,
    "application/x-ndjson": Layout.JSONL,
    "application/x-jsonlines": Layout.JSONL,
    "text/csv": Layout.CSV,
    "text/tab-separated-values": Layout.TSV,
    "application/vnd.apache.parquet": Layout.PARQUET,
    "application/x-parquet": Layout.PARQUET,
}
READABLE = ".txt, .jsonl, .ndjson, .csv, .tsv and .parquet, each also with .gz or .zst"


def corpus_format(
    *, stated: str | None = None, filename: str | None = None, media_type: str | None = None
) -> CorpusFormat:
    """The format: stated by the user (`csv`, `jsonl.gz`), else the name's endings, else by media type.

    Raises:
        UnsupportedFormatError: None of them says one that muka reads.
    """
    if stated:
        found = _by_endings(stated.lower().strip(".").split("."))
        what = f"the format {stated[:50]!r}"
    elif filename and "." in filename:
        found = _by_endings(filename.lower().split(".")[1:])
        what = f"the file {filename[:200]!r}"
    else:
        layout = _MEDIA_TYPES.get((media_type or "").partition(";")[0].strip().lower())
        found = CorpusFormat(layout) if layout else None
        what = f"the media type {media_type[:100]!r}" if media_type else "a file without name and media type"
    if found is None:
        raise UnsupportedFormatError(
            f"{what} is not read as a corpus; readable are {READABLE}. "
            "Name the file so, or state the format, as in `format=csv`"
        )
    return found


def _by_endings(endings: list[str]) -> CorpusFormat | None:
    compression = _COMPRESSIONS.get(endings[-1], Compression.NONE) if endings else Compression.NONE
    inner = endings[:-1] if compression is not Compression.NONE else endings
    layout = _LAYOUTS.get(inner[-1]) if inner else None
    return None if layout is None else CorpusFormat(layout, compression)
