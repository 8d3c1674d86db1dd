"""One uploaded corpus file, of any format, to one normalised Parquet file."""

import shutil
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from app.domain.errors import InvalidCorpusError
from app.ingestion.corpus_formats import CorpusFormat, Layout
from app.ingestion.decompression import CHUNK, Compression, open_bounded
from app.ingestion.normalise import Limits, NormalisedCorpus, write_corpus
from app.ingestion.parquet_reader import read_parquet
from app.ingestion.rows import Columns, Rows, at_line, at_row
from app.ingestion.text_readers import read_csv, read_jsonl, read_txt


@dataclass(frozen=True)
class CorpusFile:
    """What was uploaded, and how to read it."""

    path: Path
    format: CorpusFormat
    columns: Columns
    max_bytes: int
    """Decompressed."""
    limits: Limits


def normalise_file(file: CorpusFile, target: Path) -> NormalisedCorpus:
    """Read, check and write.

    Raises:
        InvalidCorpusError: With the first ten faults.
        PayloadTooLargeError: More bytes or texts than the limits.
        InvalidRequestError: Broken compression.
    """
    labelled = file.columns.label is not None
    if labelled and file.format.layout is Layout.TXT:
        raise InvalidCorpusError(
            "a .txt file has no columns, so no label column; send .csv, .jsonl or .parquet"
        )
    with open_bounded(file.path, file.format.compression, file.max_bytes) as stream:
        if file.format.layout is Layout.PARQUET:
            source = file.path
            if file.format.compression is not Compression.NONE:  # Parquet is read from its end
                source = file.path.with_name("decompressed.parquet")
                with source.open("wb") as plain:
                    shutil.copyfileobj(stream, plain, CHUNK)
            rows = read_parquet(source, file.columns, file.max_bytes)
            return write_corpus(rows, target, file.limits, at_row, labelled=labelled)
        rows = _text_rows(file, stream)
        return write_corpus(rows, target, file.limits, at_line, labelled=labelled)


def _text_rows(file: CorpusFile, stream: BufferedReader) -> Rows:
    chars = file.limits.text_chars
    match file.format.layout:
        case Layout.JSONL:
            return read_jsonl(stream, file.columns, chars)
        case Layout.CSV:
            return read_csv(stream, file.columns, chars, delimiter=",")
        case Layout.TSV:
            return read_csv(stream, file.columns, chars, delimiter="\t")
        case _:
            return read_txt(stream, chars)
