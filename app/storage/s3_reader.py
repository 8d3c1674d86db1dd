"""An object of S3 as a file that is read here and there: each read is a request for that range."""

import io
from typing import BinaryIO, cast

from app.storage.s3_bucket import PIECE_BYTES, Bucket, StoredObject

_AHEAD_BYTES = 4 << 20


def open_object(bucket: Bucket, of: StoredObject) -> BinaryIO:
    """Seekable; small reads are answered from what was read ahead."""
    return cast("BinaryIO", io.BufferedReader(_Ranges(bucket, of), min(_AHEAD_BYTES, max(1, of.size_bytes))))


class _Ranges(io.RawIOBase):
    def __init__(self, bucket: Bucket, of: StoredObject) -> None:
        self._bucket = bucket
        self._of = of
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._of.size_bytes}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def readall(self) -> bytes:
        """In large pieces; the base class takes small ones."""
        return b"".join(iter(lambda: self.read(PIECE_BYTES) or b"", b""))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # io's own type is any buffer
        stop = min(self._at + min(len(buffer), PIECE_BYTES), self._of.size_bytes)
        if self._at >= stop:
            return 0
        piece = self._bucket.read_range(self._of, self._at, stop)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)
