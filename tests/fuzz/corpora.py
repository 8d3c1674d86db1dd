"""Corpus files in every format."""

import csv
import gzip
import io
import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from app.ingestion.corpus_file import CorpusFile, normalise_file
from app.ingestion.corpus_formats import Layout, corpus_format
from app.ingestion.normalise import Limits
from app.ingestion.rows import Columns
from app.ingestion.separate_process import normalise_aside
from tests.fuzz.mutate import STRINGS, json_bytes, some_bytes, some_json
from tests.fuzz.target import Input, Target

LIMITS = Limits(texts=200, text_chars=500)
MAX_BYTES = 80 << 20
_WORDS = (
    "refund",
    "where is my order",
    "déjà vu",
    "你好",
    "a,b",
    'say "hi"',
    "tab\there",
    "line\nbreak",
    "end\r\n",
)
_HEADS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\x1f\x8b", b"PAR1", b"PK\x03\x04", b"\0", b"\n\n", b"\r")
_TEXT_LAYOUTS = (Layout.TXT, Layout.JSONL, Layout.CSV, Layout.TSV)
_COMPRESSIONS = ("", ".gz", ".zst")
_CODECS = ("none", "snappy", "gzip", "zstd", "lz4", "brotli")


def make_text(rng: Random) -> Input:
    """Lines of one of the text formats, compressed or not; both layers are broken apart from each other."""
    layout = rng.choice(_TEXT_LAYOUTS)
    content = _lines(rng, layout)
    if rng.random() < 0.1:
        content = rng.choice(_HEADS) + content
    if rng.random() < 0.02:
        content *= rng.choice((10, 300))
    if rng.random() < 0.005:
        content += rng.choice((b"x", b'"', b" ", b"\n", b"{")) * rng.choice((1 << 20, (1 << 20) + 2))
    if rng.random() < 0.4:
        content = some_bytes(rng, content, rng.randrange(1, 6))
    return _compressed(rng, layout, content)


def make_parquet(rng: Random) -> Input:
    """A Parquet file whose header, footer or pages are broken."""
    content = rng.choice(_parquet_files())
    footer = 8 + int.from_bytes(content[-8:-4], "little")
    begin, end = rng.choice(
        ((4, 100), (len(content) - footer, len(content)), (0, len(content)), (4, len(content) - footer))
    )
    begin, end = max(0, begin), min(len(content), end)
    if rng.random() < 0.95:
        content = content[:begin] + some_bytes(rng, content[begin:end], rng.randrange(1, 4)) + content[end:]
    return _compressed(rng, Layout.PARQUET, content) if rng.random() < 0.1 else Input("parquet", content)


def read(case: Input, path: Path, folder: Path) -> None:
    """The reader's whole way, with and without labels."""
    found = normalise_file(_file(case, path), folder / "corpus.parquet")
    kept = pq.read_table(folder / "corpus.parquet")
    assert kept.num_rows == found.texts > 0
    assert found.texts <= LIMITS.texts
    for text in kept.column("text").to_pylist():
        assert text == text.strip()
        assert 0 < len(text) <= LIMITS.text_chars
        assert "\0" not in text
    assert len(set(kept.column("text").to_pylist())) == kept.num_rows


def read_aside(case: Input, folder: Path) -> None:
    """As the service does."""
    path = folder / "aside"
    path.write_bytes(case.content)
    normalise_aside(_file(case, path), folder / "corpus.parquet")


def _file(case: Input, path: Path) -> CorpusFile:
    columns = Columns(label="label" if len(case.content) % 3 == 0 else None)
    return CorpusFile(path, corpus_format(stated=case.kind), columns, MAX_BYTES, LIMITS)


def _lines(rng: Random, layout: Layout) -> bytes:
    rows = [
        (_word(rng), rng.choice(("billing", "", "other", _word(rng))))
        for _ in range(rng.choice((0, 1, 2, 5, 30, 230)))
    ]
    if layout is Layout.TXT:
        text = "".join(word + rng.choice(("\n", "\n", "\r\n", "")) for word, _ in rows)
        return text.encode("utf-8", "surrogatepass")
    if layout is Layout.JSONL:
        return b"\n".join(_json_line(rng, {"text": text, "label": label}) for text, label in rows)
    out = io.StringIO()
    dialect: dict[str, Any] = {
        "delimiter": "\t" if layout is Layout.TSV else ",",
        "quoting": rng.randrange(2),
    }
    writer = csv.writer(out, **dialect, lineterminator=rng.choice(("\n", "\r\n")))
    header = ["text", "label", *rng.choice(((), ("id",), ("text",), ("",)))]
    writer.writerow(header)
    for row in rows:
        writer.writerow([*row, "7", "8"][: len(header) + (rng.random() < 0.02)])
    return out.getvalue().encode("utf-8", "surrogatepass")


def _word(rng: Random) -> str:
    word = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(4)))
    if rng.random() < 0.08:
        word += rng.choice(STRINGS)
    return word + str(rng.randrange(300)) if rng.random() < 0.9 else word * rng.choice((1, 30))


def _json_line(rng: Random, row: dict[str, str]) -> bytes:
    if rng.random() < 0.05:
        return json_bytes(rng, some_json(rng, row, rng.randrange(1, 3)))
    return json.dumps(row).encode()


def _compressed(rng: Random, layout: Layout, content: bytes) -> Input:
    ending = rng.choice(_COMPRESSIONS)
    if ending:
        packed = _pack(rng, ending, content)
        if rng.random() < 0.1:
            packed += rng.choice(
                (_pack(rng, ending, b"more\n"), _pack(rng, ending, b"") * 50, b"\0" * 600, b"junk")
            )
        if rng.random() < 0.4:
            packed = some_bytes(rng, packed, rng.randrange(1, 4))
        content = packed
    return Input(f"{layout}{ending}", content)


def _pack(rng: Random, ending: str, content: bytes) -> bytes:
    if ending == ".gz":
        return gzip.compress(content, rng.choice((0, 1, 9)), mtime=0)
    options: dict[str, bool] = {
        "write_checksum": rng.random() < 0.5,
        "write_content_size": rng.random() < 0.5,
    }
    return zstandard.ZstdCompressor(rng.choice((1, 3, 15)), **options).compress(content)


@cache
def _parquet_files() -> list[bytes]:
    """One of each type, codec and layout, a few hundred bytes to a few kilobytes each."""
    texts = ["refund", "where", "déjà vu", "", "你好" * 9, "refund"] * 3
    nulls: list[str | None] = [None if i % 4 == 0 else text for i, text in enumerate(texts)]
    labels = pa.array(["a", "b", "c"] * 6)
    types = (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string()))
    columns: list[Any] = [
        pa.array(values, pa.string()).cast(kind) for kind in types for values in (texts, nulls)
    ]
    columns += [pa.array(range(18)), pa.array([t.encode() for t in texts]), pa.array([[t] for t in texts])]
    files = [
        _parquet(pa.table({"text": column, "label": labels}), compression=codec, data_page_version=version)
        for column in columns
        for codec in _CODECS
        for version in ("1.0", "2.0")
    ]
    table = pa.table({"text": columns[0], "label": labels, "nested": pa.array([{"text": t} for t in texts])})
    files += [
        _parquet(table, row_group_size=5),
        _parquet(table.slice(0, 0)),
        _parquet(table, data_page_size=16),
    ]
    encoded = {
        "use_dictionary": False,
        "column_encoding": {"text": "DELTA_BYTE_ARRAY", "label": "DELTA_LENGTH_BYTE_ARRAY"},
    }
    files.append(_parquet(table.select(["text", "label"]), **encoded))
    twice = pa.Table.from_arrays([columns[0], columns[0]], names=["text", "text"])
    return [*files, _parquet(twice)]


def _parquet(table: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **options)
    return out.getvalue()


TEXTS = Target("texts", make_text, read, grown_bytes=256 << 20)
PARQUET = Target("parquet", make_parquet, read, grown_bytes=3 << 30, aside=read_aside)
