"""Readers of .txt, .jsonl, .csv and .tsv."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from app.domain.errors import Fault
from app.ingestion.rows import Columns, Row, Rows, missing_columns
from app.ingestion.text_lines import BYTES_PER_CHAR, MIN_LINE_BYTES, numbered_lines

Lines = Iterator[tuple[int, str] | Fault]


def read_txt(stream: io.BufferedReader, max_text_chars: int) -> Rows:
    """One text a line."""
    for line in numbered_lines(stream, max_text_chars):
        yield line if isinstance(line, Fault) else Row(*line)


def read_jsonl(stream: io.BufferedReader, columns: Columns, max_text_chars: int) -> Rows:
    """One JSON object a line; empty lines are skipped."""
    for line in numbered_lines(stream, max_text_chars):
        if isinstance(line, Fault):
            yield line
        elif not line[1].isspace():
            yield _json_row(*line, columns)


def _json_row(number: int, line: str, columns: Columns) -> Row | Fault:
    try:
        content = json.loads(line.rstrip("\r\n"))
    except json.JSONDecodeError as error:
        detail = f"not valid JSON: {error.msg}"
        return Fault(f"line {number}, column {error.pos + 1}", "invalid_json", detail)
    except (ValueError, RecursionError):
        return Fault(f"line {number}", "invalid_json", "not valid JSON: too deep, or a number too long")
    if not isinstance(content, dict):
        detail = 'every line must be a JSON object, like {"text": "…"}'
        return Fault(f"line {number}", "not_an_object", detail)
    if problem := missing_columns(columns, list(content)):
        return Fault(f"line {number}", "missing_column", problem)
    for name in columns.all:
        if not isinstance(content[name], str | None):
            kind = type(content[name]).__name__
            return Fault(f"line {number}", "not_a_string", f"{name!r} must be a string, not {kind}")
    return Row(number, content[columns.text], content[columns.label] if columns.label else None)


def read_csv(stream: io.BufferedReader, columns: Columns, max_text_chars: int, *, delimiter: str) -> Rows:
    """Records under a header; quoted fields may hold line breaks."""
    csv.field_size_limit(max(131_072, BYTES_PER_CHAR * max_text_chars))
    faults: list[Fault] = []
    lines = _RecordLines(numbered_lines(stream, max_text_chars), faults, max_text_chars)
    records = _records(csv.reader(lines, delimiter=delimiter, strict=True), lines)
    header = next((record for record in records if isinstance(record, Fault) or _has_words(record)), None)
    yield from faults
    if header is None or isinstance(header, Fault):
        if header is not None:
            yield header
        return
    if problem := _header_problem(header[1], columns, delimiter):
        yield Fault("line 1", "missing_column", problem)
        return
    yield from _csv_rows(records, header[1], columns, faults)


def _has_words(record: tuple[int, list[str]]) -> bool:
    return any(field.strip() for field in record[1])


def _csv_rows(
    records: Iterator[tuple[int, list[str]] | Fault], header: list[str], columns: Columns, faults: list[Fault]
) -> Rows:
    text_at = header.index(columns.text)
    label_at = header.index(columns.label) if columns.label else None
    faults.clear()
    for record in records:
        while faults:
            yield faults.pop(0)
        if isinstance(record, Fault):
            yield record
            continue
        number, fields = record
        if len(fields) == len(header):
            yield Row(number, fields[text_at], None if label_at is None else fields[label_at])
        elif fields:
            detail = (
                f"the row has {len(fields)} fields, the header {len(header)}; is a quote or comma missing?"
            )
            yield Fault(f"line {number}", "ragged_row", detail)
    yield from faults


class _RecordLines:
    """Decoded lines for the csv module; remembers where a record began, and bounds its length."""

    def __init__(self, lines: Lines, faults: list[Fault], max_text_chars: int) -> None:
        self._lines = lines
        self._faults = faults
        self._limit = max(MIN_LINE_BYTES, BYTES_PER_CHAR * max_text_chars)
        self._chars = 0
        self.first = 0

    def begin_record(self) -> None:
        self.first = self._chars = 0

    def __iter__(self) -> "_RecordLines":
        return self

    def __next__(self) -> str:
        for line in self._lines:
            if isinstance(line, Fault):
                self._faults.append(line)
                continue
            number, text = line
            self.first = self.first or number
            self._chars += len(text)
            if self._chars > self._limit:
                self._chars = 0
                raise csv.Error(f"the record has more than {self._limit} characters; is a quote not closed?")
            return text
        raise StopIteration


def _records(reader: Any, lines: _RecordLines) -> Iterator[tuple[int, list[str]] | Fault]:
    """Line of the record's beginning, and its fields."""
    while True:
        lines.begin_record()
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Fault(f"line {lines.first}", "invalid_csv", f"not valid CSV: {error}")
        else:
            yield lines.first, fields


def _header_problem(header: list[str], columns: Columns, delimiter: str) -> str | None:
    problem = missing_columns(columns, header)
    if problem and len(header) == 1 and any(mark in header[0] for mark in ";\t,|"):
        name = "commas" if delimiter == "," else "tabs"
        return f"{problem}. The columns must be separated by {name}"
    repeated = [name for name in columns.all if header.count(name) > 1]
    return (
        f"the header has the column {repeated[0]!r} more than once" if not problem and repeated else problem
    )
