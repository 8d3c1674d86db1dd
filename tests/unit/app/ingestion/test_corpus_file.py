"""Corpus files of every format, good and bad, through the whole reader."""

import contextlib
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import InvalidCorpusError, InvalidRequestError, MukaError, PayloadTooLargeError
from app.ingestion.corpus_file import CorpusFile, normalise_file
from app.ingestion.corpus_formats import corpus_format
from app.ingestion.normalise import Limits, NormalisedCorpus
from app.ingestion.rows import Columns

TEXTS = ["my card was declined", "where is my parcel", "die Rechnung über 5 €"]


def _read(
    folder: Path,
    name: str,
    content: bytes,
    *,
    label: str | None = None,
    text: str = "text",
    max_bytes: int = 1 << 20,
    limits: Limits | None = None,
) -> NormalisedCorpus:
    source = folder / "upload"
    source.write_bytes(content)
    file = CorpusFile(
        source, corpus_format(filename=name), Columns(text, label), max_bytes, limits or Limits(1000, 200)
    )
    return normalise_file(file, folder / "out.parquet")


def _stored(folder: Path) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = pq.read_table(folder / "out.parquet").to_pydict()
    return found


def _refused(folder: Path, name: str, content: bytes, **options: Any) -> InvalidCorpusError:
    with pytest.raises(InvalidCorpusError) as caught:
        _read(folder, name, content, **options)
    return caught.value


def _csv(rows: list[list[str]], delimiter: str = ",") -> bytes:
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


def _parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, **options)
    return out.getvalue()


SAME = {
    "a.txt": "\n".join(TEXTS).encode(),
    "a.jsonl": "".join(json.dumps({"text": text, "id": 1}) + "\n" for text in TEXTS).encode(),
    "a.ndjson": "".join(json.dumps({"text": text}) + "\r\n\r\n" for text in TEXTS).encode(),
    "a.csv": _csv([["id", "text"], *([str(i), text] for i, text in enumerate(TEXTS))]),
    "a.tsv": _csv([["text"], *([text] for text in TEXTS)], "\t"),
    "a.parquet": _parquet({"text": TEXTS, "id": [1, 2, 3]}),
    "a.txt.gz": gzip.compress("\n".join(TEXTS).encode()),
    "a.txt.zst": zstandard.compress("\n".join(TEXTS).encode()),
    "a.parquet.gz": gzip.compress(_parquet({"text": TEXTS})),
    "b.parquet": _parquet({"text": pa.array(TEXTS, pa.large_string())}),
    "c.parquet": _parquet({"text": pa.array(TEXTS).dictionary_encode()}),
    "bom.txt": b"\xef\xbb\xbf" + "\r\n".join(TEXTS).encode(),
    "members.txt.gz": b"".join(gzip.compress(f"{text}\n".encode()) for text in TEXTS),
    "frames.txt.zst": b"".join(zstandard.compress(f"{text}\n".encode()) for text in TEXTS),
}


@pytest.mark.parametrize("name", SAME)
def test_every_format_gives_the_same_corpus(tmp_path: Path, name: str) -> None:
    corpus = _read(tmp_path, name, SAME[name])
    assert _stored(tmp_path) == {"text": TEXTS}
    assert corpus == _read(tmp_path, "a.txt", SAME["a.txt"])


def test_texts_are_normalised_and_what_is_dropped_is_counted(tmp_path: Path) -> None:
    lines = ["  cafe\u0301 ", "caf\u00e9", "", " \t", "tea", "TEA", "tea"]
    corpus = _read(tmp_path, "a.txt", "\n".join(lines).encode())
    assert _stored(tmp_path)["text"] == ["caf\u00e9", "tea", "TEA"]
    assert corpus.texts == 3
    assert corpus.statistics == {
        "characters": {"min": 3, "mean": 3.33, "median": 3, "p95": 4, "max": 4},
        "dropped_empty": 2,
        "dropped_duplicates": 2,
    }


def test_the_first_label_wins_and_conflicts_are_counted(tmp_path: Path) -> None:
    rows = [["text", "y"], ["a", "one"], ["b", " two "], ["a", "two"], ["a", "one"]]
    corpus = _read(tmp_path, "a.csv", _csv(rows), label="y")
    assert _stored(tmp_path) == {"text": ["a", "b"], "label": ["one", "two"]}
    assert corpus.labelled
    assert corpus.statistics["labels"] == {"one": 1, "two": 1}
    assert corpus.statistics["label_conflicts"] == 1


def test_labels_and_order_are_content(tmp_path: Path) -> None:
    def sha256(rows: list[list[str]], label: str | None = None) -> str:
        return _read(tmp_path, "a.csv", _csv([["text", "y"], *rows]), label=label).content_sha256

    rows = [["a", "1"], ["b", "2"]]
    hashes = [sha256(rows), sha256(rows, "y"), sha256(rows[::-1]), sha256([["a", "2"], ["b", "2"]], "y")]
    assert len(set(hashes)) == 4
    assert sha256([["a ", "3"], ["", "x"], ["b", "2"]]) == hashes[0]


def test_quoted_fields_may_hold_line_breaks(tmp_path: Path) -> None:
    _read(tmp_path, "a.csv", _csv([["text"], ["one\ntwo"], ['a "quote", a comma']]))
    assert _stored(tmp_path)["text"] == ["one\ntwo", 'a "quote", a comma']


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz"])
@pytest.mark.parametrize("content", [b"", b"\n \n\n"])
def test_an_empty_corpus_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    error = _refused(tmp_path, name, gzip.compress(content) if name.endswith("gz") else content)
    assert error.faults[0].code == "empty_corpus"


def test_a_corpus_of_duplicates_is_refused_with_counts(tmp_path: Path) -> None:
    error = _refused(tmp_path, "a.txt", b"same\n same\n\nsame\n")
    assert error.faults[0].code == "all_duplicates"
    assert "of 4 texts 2 are duplicates and 1 are empty" in error.detail


def test_line_5000_is_named(tmp_path: Path) -> None:
    lines = [json.dumps({"text": f"text {i}"}) for i in range(6000)]
    lines[4999] = '{"text": "broken'
    error = _refused(tmp_path, "a.jsonl", "\n".join(lines).encode(), limits=Limits(10_000, 200))
    assert [(f.pointer, f.code) for f in error.faults] == [("line 5000, column 10", "invalid_json")]


def test_ten_faults_are_shown_and_all_are_counted(tmp_path: Path) -> None:
    error = _refused(tmp_path, "a.jsonl", b"nonsense\n" * 37)
    assert len(error.faults) == 10
    assert "37 errors" in error.detail


BAD = {
    ("nul.txt", b"fine\nbi\0nary\n"): ("line 2, column 3", "not_text", "NUL"),
    ("latin.txt", b"fine\ncaf\xe9\n"): ("line 2, column 4", "not_utf8", "save the file as UTF-8"),
    ("utf16.txt", "fine\n".encode("utf-16")): ("line 1, column 1", "not_utf8", "UTF-16"),
    ("gzip.txt", gzip.compress(b"fine")): ("line 1", "not_", "name it .gz"),
    ("array.jsonl", b'["fine"]'): ("line 1", "not_an_object", "JSON object"),
    ("number.jsonl", b'{"text": "a"}\n{"text": 5}'): ("line 2", "not_a_string", "not int"),
    ("column.jsonl", b'{"body": "a"}'): ("line 1", "missing_column", "'body'"),
    ("surrogate.jsonl", b'{"text": "\\ud800"}'): ("line 1", "not_utf8", "surrogate"),
    ("nul.jsonl", b'{"text": "a\\u0000b"}'): ("line 1", "not_text", "NUL"),
    ("deep.jsonl", b'{"text": ' + b"[" * 100_000): ("line 1", "invalid_json", "deep"),
    ("column.csv", b"body,id\na,1\n"): ("line 1", "missing_column", "there are: 'body', 'id'"),
    ("semicolon.csv", b"text;id\na;1\n"): ("line 1", "missing_column", "separated by commas"),
    ("twice.csv", b"text,text\na,1\n"): ("line 1", "missing_column", "more than once"),
    ("ragged.csv", b"text,id\na,1\nb, c,2\n"): ("line 3", "ragged_row", "3 fields, the header 2"),
    ("quote.csv", b'text,id\n"a,1\nb,2\n'): ("line 2", "invalid_csv", "not valid CSV"),
    ("nul.csv", b"text,id\n\0,1\n"): ("line 2, column 1", "not_text", "NUL"),
    ("junk.parquet", b"PAR1 but not really"): ("file", "invalid_parquet", "broken"),
    ("number.parquet", _parquet({"text": [1, 2]})): ("file", "not_a_string", "int64"),
    ("column.parquet", _parquet({"body": ["a"]})): ("file", "missing_column", "'body'"),
    ("cut.parquet", SAME["a.parquet"][:-20]): ("file", "invalid_parquet", "broken"),
    ("long.txt", b"fine\n" + b"x" * 201): ("line 2", "text_too_long", "201 characters; the limit is 200"),
}


@pytest.mark.parametrize(("name", "content"), BAD, ids=[name for name, _ in BAD])
def test_bad_files_are_refused_where_they_are_bad(tmp_path: Path, name: str, content: bytes) -> None:
    pointer, code, words = BAD[name, content]
    error = _refused(tmp_path, name, content)
    assert error.faults[0].pointer.startswith(pointer)
    assert error.faults[0].code.startswith(code)
    assert words in error.faults[0].detail
    assert str(tmp_path) not in error.detail


def test_an_empty_label_is_a_fault(tmp_path: Path) -> None:
    error = _refused(tmp_path, "a.csv", _csv([["text", "y"], ["a", ""]]), label="y")
    assert (error.faults[0].pointer, error.faults[0].code) == ("line 2", "label_invalid")


def test_a_text_file_has_no_labels(tmp_path: Path) -> None:
    assert "no columns" in _refused(tmp_path, "a.txt", b"a\nb", label="y").detail


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt.gz", b"no gzip at all"),
        ("a.txt.gz", gzip.compress(b"text\n" * 100)[:-6]),
        ("a.txt.zst", b"no zstd at all"),
        ("a.txt.zst", zstandard.compress(b"text\n" * 100)[:-6]),
        ("a.parquet.gz", gzip.compress(SAME["a.parquet"])[:-6]),
    ],
)
def test_broken_compression_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="no complete"):
        _read(tmp_path, name, content)


def test_more_texts_than_the_limit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PayloadTooLargeError, match="more than 5 texts"):
        _read(tmp_path, "a.txt", b"a\nb\nc\nd\ne\nf\n", limits=Limits(5, 100))


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_a_bomb_is_refused_while_it_is_read(tmp_path: Path, ending: str) -> None:
    content = (b"a" * 1999 + b"\n") * 40_000
    bomb = gzip.compress(content) if ending == "gz" else zstandard.compress(content)
    with pytest.raises(PayloadTooLargeError, match="limit of 1,048,576 bytes"):
        _read(tmp_path, f"a.txt.{ending}", bomb, limits=Limits(1 << 40, 2000))
    with pytest.raises(PayloadTooLargeError, match="200 times"):
        _read(tmp_path, f"a.txt.{ending}", bomb, max_bytes=1 << 40, limits=Limits(1 << 40, 2000))


def test_a_parquet_bomb_is_refused_by_its_footer(tmp_path: Path) -> None:
    content = _parquet({"text": ["x" * 100_000 + str(i) for i in range(50)]}, use_dictionary=False)
    with pytest.raises(PayloadTooLargeError, match="decompressed"):
        _read(tmp_path, "a.parquet", content)


def test_a_line_without_end_is_not_held(tmp_path: Path) -> None:
    error = _refused(tmp_path, "a.txt", b"x" * (3 << 20), max_bytes=1 << 30)
    assert error.faults[0].code == "line_too_long"


def test_an_open_quote_does_not_swallow_the_file(tmp_path: Path) -> None:
    content = b'text,id\n"a,1\n' + b"b,2\n" * 600_000
    error = _refused(tmp_path, "a.csv", content, max_bytes=1 << 30)
    assert error.faults[0].pointer == "line 2"


SEEDS = [
    SAME["a.jsonl"],
    SAME["a.csv"],
    SAME["a.parquet"],
    SAME["c.parquet"],
    SAME["a.txt.gz"],
    SAME["a.txt.zst"],
]
NAMES = ["a.txt", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.txt.gz", "a.jsonl.zst"]


@st.composite
def _damaged(draw: st.DrawFn) -> bytes:
    """A good file with some bytes replaced, and perhaps cut off."""
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content[: draw(st.integers(1, len(content)))])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(NAMES), content=st.binary(max_size=300) | _damaged(), labelled=st.booleans())
def test_any_bytes_are_read_or_refused(tmp_path: Path, name: str, content: bytes, labelled: bool) -> None:
    with contextlib.suppress(MukaError):
        corpus = _read(tmp_path, name, content, label="id" if labelled else None)
        assert corpus.texts == len(_stored(tmp_path)["text"]) > 0
