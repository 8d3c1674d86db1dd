"""A `multipart/form-data` body that arrives in pieces: small fields, and one file that goes to the disk."""

from collections.abc import Callable
from pathlib import Path
from typing import IO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from app.domain.errors import Fault, InvalidRequestError, PayloadTooLargeError

MAX_FIELD_BYTES = 4096
MAX_PARTS = 20
FILE_FIELD = "file"


class MultipartBody:
    """A push parser: feed it bytes with `write`, then ask `finish` for what came."""

    def __init__(self, boundary: bytes, path: Path, limit: int, allowed: frozenset[str]) -> None:
        self._path = path
        self._limit = limit
        self._allowed = allowed
        self._part = _Part()
        self._parts = 0
        self._file: IO[bytes] | None = None
        self._has_ended = False
        self.faults: list[Fault] = []
        self.fields: dict[str, str] = {}
        self.filename: str | None = None
        self.media_type: str | None = None
        self.size = 0
        try:
            self._parser = MultipartParser(boundary, self._callbacks())  # type: ignore[arg-type]
        except FormParserError as error:
            raise _broken(str(error)) from error

    def write(self, data: bytes) -> None:
        """The next piece of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _broken(str(error)) from error

    def finish(self) -> None:
        """The body has ended. Raises when it is cut off, or has not exactly one file."""
        if not self._has_ended:
            raise _broken("it ends before its last boundary")
        if self.filename is None and not self.faults:
            cure = "send the file as the part `file`, with a filename (curl: -F file=@PATH)"
            self.faults.append(Fault(f"/{FILE_FIELD}", "missing", cure))
        if self.faults:
            raise InvalidRequestError(f"the form is not right: {self.faults[0].detail}", faults=self.faults)

    def close(self) -> None:
        """Also after an error."""
        if self._file is not None:
            self._file.close()

    def _callbacks(self) -> dict[str, Callable[..., None]]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._part.add_name(data[start:end]),
            "on_header_value": lambda data, start, end: self._part.add_value(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._open,
            "on_part_data": lambda data, start, end: self._take(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._finished,
        }

    def _begin(self) -> None:
        self._part = _Part()
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise PayloadTooLargeError(f"the form has more than {MAX_PARTS} parts")

    def _end_header(self) -> None:
        self._part.end_header()

    def _open(self) -> None:
        self._part.read_disposition()
        name = self._part.name
        if name == FILE_FIELD and self._part.filename is not None:
            if self._file is not None:
                self.faults.append(Fault(f"/{FILE_FIELD}", "duplicate", "send one file a request"))
                return
            self.filename, self.media_type = self._part.filename, self._part.media_type
            self._file = self._path.open("xb")
            self._part.target = self._file
        elif name == FILE_FIELD:
            self.faults.append(Fault(f"/{FILE_FIELD}", "no_filename", "the part `file` needs a filename"))
        elif name not in self._allowed:
            known = ", ".join([FILE_FIELD, *sorted(self._allowed)])
            self.faults.append(
                Fault(f"/{name[:100]}", "extra_forbidden", f"there is no such field; known are {known}")
            )

    def _take(self, data: bytes) -> None:
        if self._part.target is not None:
            self.size += len(data)
            refuse_over(self.size, self._limit)
            self._part.target.write(data)
            return
        if self._part.name not in self._allowed:
            return  # a fault is noted already
        self._part.value += data
        if len(self._part.value) > MAX_FIELD_BYTES:
            raise PayloadTooLargeError(f"a field of the form has more than {MAX_FIELD_BYTES} bytes")

    def _end(self) -> None:
        name = self._part.name
        if self._part.target is None and name in self._allowed:
            if name in self.fields:
                self.faults.append(Fault(f"/{name}", "duplicate", "send every field once"))
            self.fields[name] = self._part.value.decode("utf-8", "replace")

    def _finished(self) -> None:
        self._has_ended = True


class _Part:
    """One part: its headers, and where its content goes."""

    def __init__(self) -> None:
        self.name = ""
        self.filename: str | None = None
        self.media_type: str | None = None
        self.target: IO[bytes] | None = None
        self.value = b""
        self._headers: dict[bytes, bytes] = {}
        self._header = self._content = b""

    def add_name(self, data: bytes) -> None:
        self._header += data

    def add_value(self, data: bytes) -> None:
        self._content += data

    def end_header(self) -> None:
        self._headers[self._header.lower()] = self._content
        self._header = self._content = b""

    def read_disposition(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        self.name = options.get(b"name", b"").decode("utf-8", "replace")
        if (filename := options.get(b"filename")) is not None:
            self.filename = filename.decode("utf-8", "replace")
        self.media_type = self._headers.get(b"content-type", b"").decode("latin-1") or None


def refuse_over(size: int, limit: int) -> None:
    """Raise when the file has grown over its limit."""
    if size > limit:
        raise PayloadTooLargeError(f"the file has more than {limit:,} bytes, the limit of this upload")


def _broken(reason: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"the multipart body is broken: {reason}; send it again", code="multipart_invalid"
    )
