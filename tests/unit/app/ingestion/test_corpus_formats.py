"""A corpus' format is stated, never guessed."""

import pytest

from app.domain.errors import UnsupportedFormatError
from app.ingestion.corpus_formats import CorpusFormat, Layout, corpus_format
from app.ingestion.decompression import Compression


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"filename": "a.TXT"}, CorpusFormat(Layout.TXT)),
        ({"filename": "v1.2.ndjson"}, CorpusFormat(Layout.JSONL)),
        ({"filename": "a.csv.gz"}, CorpusFormat(Layout.CSV, Compression.GZIP)),
        ({"stated": "parquet", "filename": "a.bin"}, CorpusFormat(Layout.PARQUET)),
        ({"stated": "jsonl.zst"}, CorpusFormat(Layout.JSONL, Compression.ZSTD)),
        ({"media_type": "text/csv; charset=utf-8"}, CorpusFormat(Layout.CSV)),
        ({"filename": "no-ending", "media_type": "application/x-ndjson"}, CorpusFormat(Layout.JSONL)),
    ],
)
def test_the_most_explicit_word_wins(said: dict[str, str], expected: CorpusFormat) -> None:
    assert corpus_format(**said) == expected


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"filename": "a.xlsx", "media_type": "text/csv"},
        {"filename": "a.gz"},
        {"filename": "a.csv.bz2"},
        {"stated": "excel", "filename": "a.csv"},
        {"media_type": "application/octet-stream"},
    ],
)
def test_anything_else_is_refused_with_the_list(said: dict[str, str]) -> None:
    with pytest.raises(UnsupportedFormatError, match=r"\.jsonl.*\.parquet"):
        corpus_format(**said)
