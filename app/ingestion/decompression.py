"""Compressed files as streams that are bounded while they are read: by size, and by ratio."""

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from app.domain.errors import InvalidRequestError, PayloadTooLargeError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_RATIO = 200
"""Natural text compresses 3 to 10 times; a bomb a thousand times and more."""
FREE_BYTES = 64 << 20
"""The ratio is not asked below this size: small files may be as regular as they like."""
CHUNK = 1 << 20
MAX_PACKING = 1.25
"""No honest file is larger compressed than its content by so much: a million empty members are."""
_ZSTD_INPUT = 1 << 10
"""Bytes given to zstd at once: a kilobyte of it can become 32 MB, and no more."""


class Compression(StrEnum):
    """Around a whole file."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"


@contextmanager
def open_bounded(path: Path, compression: Compression, limit: int) -> Iterator[io.BufferedReader]:
    """The file's content, decompressed while it is read.

    Reading raises `PayloadTooLargeError` beyond `limit` bytes or beyond the ratio, and
    `InvalidRequestError` where the compressed data are broken.
    """
    with path.open("rb") as file:
        raw = _Bounded(file, compression, limit)
        with cast("io.BufferedReader", io.BufferedReader(raw, CHUNK)) as reader:
            yield reader


class _Bounded(io.RawIOBase):
    """Counts what comes out, and compares it with what went in."""

    def __init__(self, file: BinaryIO, compression: Compression, limit: int) -> None:
        self._file = file
        self._source = _source(_Fed(file, self._check_packing), compression)
        self._compression = compression
        self._limit = limit
        self._seen = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        data = self._read(len(view))
        self._seen += len(data)
        self._check()
        view[: len(data)] = data
        return len(data)

    def _read(self, size: int) -> bytes:
        try:
            return self._source.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile, _BrokenZstdError) as error:
            raise InvalidRequestError(
                f"the file is no complete {self._compression} file ({error}); compress it again, "
                "or send it uncompressed",
                code="compression_invalid",
            ) from error

    def _check(self) -> None:
        if self._seen > self._limit:
            raise PayloadTooLargeError(
                f"the content is larger than the limit of {self._limit:,} bytes, decompressed"
            )
        if self._seen > FREE_BYTES and self._seen > MAX_RATIO * max(1, self._file.tell()):
            raise PayloadTooLargeError(
                f"the file decompresses to more than {MAX_RATIO} times its size; send it uncompressed"
            )

    def _check_packing(self, read: int) -> None:
        """Called before more is read: a single call of a decompressor may go through a whole file."""
        if self._compression is not Compression.NONE and read > CHUNK + MAX_PACKING * self._seen:
            raise InvalidRequestError(
                f"{read:,} compressed bytes hold only {self._seen:,} bytes of content; compress the file "
                "again as one piece, or send it uncompressed",
                code="compression_invalid",
            )


class _Fed(io.RawIOBase):
    """What a decompressor reads from: tells how much it has taken before it takes more."""

    def __init__(self, file: BinaryIO, before_read: Callable[[int], None]) -> None:
        self._file = file
        self._before_read = before_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        self._before_read(self._file.tell())
        data = self._file.read(len(memoryview(buffer)))
        memoryview(buffer)[: len(data)] = data
        return len(data)


def _source(file: _Fed, compression: Compression) -> "_Fed | gzip.GzipFile | _Zstd":
    if compression is Compression.GZIP:
        return gzip.GzipFile(fileobj=file, mode="rb")
    if compression is Compression.ZSTD:
        return _Zstd(file)
    return file


class _BrokenZstdError(Exception):
    pass


class _Zstd:
    """zstd frames, one after the other; unlike the package's own reader it notices a cut-off file."""

    def __init__(self, file: _Fed) -> None:
        import zstandard  # noqa: PLC0415  (loads when the first such file comes)

        self._error = zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._file = file
        self._frame = self._decompressor.decompressobj()
        self._is_between_frames = False
        self._rest = b""
        self._ready = memoryview(b"")

    def read(self, size: int) -> bytes:
        while not self._ready:
            compressed = self._rest or self._file.read(_ZSTD_INPUT)
            self._rest = b""
            if not compressed:
                if not self._is_between_frames:
                    raise _BrokenZstdError("it ends too early")
                return b""
            self._ready = memoryview(self._decompress(compressed))
        data, self._ready = bytes(self._ready[:size]), self._ready[size:]
        return data

    def _decompress(self, compressed: bytes) -> bytes:
        if self._is_between_frames:
            self._frame = self._decompressor.decompressobj()
        try:
            data = self._frame.decompress(compressed)
        except self._error as error:
            raise _BrokenZstdError(str(error)) from error
        self._is_between_frames = self._frame.eof
        self._rest = self._frame.unused_data if self._frame.eof else b""
        return data
