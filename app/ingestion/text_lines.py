"""Lines of a UTF-8 file, one at a time, with faults where it is not text."""

import codecs
import io
from collections.abc import Iterator

from app.domain.errors import Fault

MIN_LINE_BYTES = 1 << 20
BYTES_PER_CHAR = 16
"""Of a line: twelve for an escaped character of JSON, and room for the other columns."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_FOREIGN = {
    b"\x1f\x8b": "gzip (name it .gz)",
    b"\x28\xb5\x2f\xfd": "zstd (name it .zst)",
    b"PAR1": "Parquet (name it .parquet)",
    b"PK\x03\x04": "a zip archive or an office document",
}
"""How files begin that are often sent by mistake."""


def numbered_lines(stream: io.BufferedReader, max_text_chars: int) -> Iterator[tuple[int, str] | Fault]:
    """Number (from 1) and text of every line, its ending kept; a leading byte-order mark is skipped.

    Ends early after a line that is too long to be held.
    """
    limit = max(MIN_LINE_BYTES, BYTES_PER_CHAR * max_text_chars)
    head = stream.peek(4)[:4]
    if head.startswith(_UTF16):
        yield Fault("line 1, column 1", "not_utf8", "the file is UTF-16; save it as UTF-8")
        return
    if head.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    hint = _hint(head)
    number = 0
    while raw := stream.readline(limit + 1):
        number += 1
        if len(raw) > limit:
            yield Fault(f"line {number}", "line_too_long", f"the line has more than {limit} bytes{hint}")
            return
        yield _decoded(number, raw, hint)


def _decoded(number: int, raw: bytes, hint: str) -> tuple[int, str] | Fault:
    nul = raw.find(b"\0")
    if nul >= 0:
        detail = f"a NUL byte: the file is no text{hint}"
        return Fault(f"line {number}, column {nul + 1}", "not_text", detail)
    try:
        return number, raw.decode("utf-8")
    except UnicodeDecodeError as error:
        byte = raw[error.start]
        detail = f"the byte 0x{byte:02x} is not valid UTF-8{hint or '; save the file as UTF-8'}"
        return Fault(f"line {number}, column {error.start + 1}", "not_utf8", detail)


def _hint(head: bytes) -> str:
    return next(
        (f"; the file looks like {what}" for magic, what in _FOREIGN.items() if head.startswith(magic)), ""
    )
