"""Bytes that clients fetch, whole or in ranges: stored files, and what is laid out around them."""

import hashlib
import mmap
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO, TypeAlias

from app.storage import ArtifactStore, StoreError

READ_BYTES = 1 << 18
"""Of memory of ours, for each client."""
AHEAD_BYTES = 8 << 20
WINDOW_BYTES = 4 << 20
"""Of the system's memory, at a time; less, and to map and unmap takes longer than to send."""
PIECE_BYTES = 1 << 16
"""So much the system reads ahead, and lets go of, mostly at once."""
Chunk: TypeAlias = bytes | memoryview
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
"""Of Linux."""


@dataclass(frozen=True)
class StoredFile:
    """A file in the store, with the sha256 that its manifest promises."""

    key: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Download:
    """Something to fetch: literal bytes and stored files, one after the other."""

    filename: str
    parts: Sequence[bytes | StoredFile]

    @property
    def size_bytes(self) -> int:
        """Of all parts."""
        return sum(_size(part) for part in self.parts)

    @property
    def sha256(self) -> str | None:
        """Of the bytes, where it is known without reading them: of a single stored file."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return only.sha256 if isinstance(only, StoredFile) else None

    @property
    def digest(self) -> str:
        """Names the bytes, in hex: their sha256, or the sha256 over the parts' own."""
        if self.sha256 is not None:
            return self.sha256
        parts = (p.sha256 if isinstance(p, StoredFile) else hashlib.sha256(p).hexdigest() for p in self.parts)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def check(self, store: ArtifactStore) -> None:
        """Before the first byte is sent: every file is there, as long as its manifest says.

        Raises:
            StoreError: a file is missing or cut off.
        """
        for part in self.parts:
            if isinstance(part, StoredFile) and not _is_whole(store, part):
                raise StoreError(f"{part.key} is missing or has another size than {part.size_bytes} bytes")

    def url(self, store: ArtifactStore) -> str | None:
        """Where clients fetch it without us: a single file of a store that others reach, too."""
        only = self.parts[0] if len(self.parts) == 1 else None
        return store.url(only.key) if isinstance(only, StoredFile) else None

    def read(self, store: ArtifactStore, start: int, stop: int) -> Generator[Chunk | None]:
        """The bytes from `start` up to `stop`, in chunks: memory stays flat.

        None comes before a chunk that is to be waited for. All others are there at once.
        """
        offset = 0
        for part in self.parts:
            size = _size(part)
            first, last = max(start - offset, 0), min(stop - offset, size)
            if first < last:
                yield from _read(store, part, first, last)
            offset += size


def _size(part: bytes | StoredFile) -> int:
    return part.size_bytes if isinstance(part, StoredFile) else len(part)


def _is_whole(store: ArtifactStore, part: StoredFile) -> bool:
    try:
        return store.size(part.key) == part.size_bytes
    except FileNotFoundError:
        return False


def _read(store: ArtifactStore, part: bytes | StoredFile, start: int, stop: int) -> Iterator[Chunk | None]:
    if isinstance(part, bytes):
        yield part[start:stop]
        return
    yield None
    with store.open(part.key) as file:
        while start < stop:
            chunk: Chunk | None = _mapped(file, start, stop)
            if chunk is None:
                yield None
                _call_for(file, start, min(AHEAD_BYTES, stop - start))
                file.seek(start)
                chunk = file.read(min(READ_BYTES, stop - start))
            if not chunk:
                raise StoreError(f"{part.key} ends {stop - start} bytes too early")
            start += len(chunk)
            yield chunk


def _mapped(file: BinaryIO, start: int, stop: int) -> memoryview | None:
    """The bytes from `start`, not always up to `stop`, as the system has them in memory: nobody copies them.

    None: to read them has to wait, or nobody knows. Stored files are never written to again. Where the disk
    of one is lost while it is sent, the kernel finds out in the middle of a `send`: that connection breaks.
    One mapping of a whole file would stay in this process' memory, in spite of MADV_DONTNEED.
    """
    begin = start - start % WINDOW_BYTES
    stop = min(stop, begin + WINDOW_BYTES)
    if not _is_in_memory(file, start, stop):
        return None
    try:
        window = mmap.mmap(file.fileno(), stop - begin, access=mmap.ACCESS_READ, offset=begin)
    except (OSError, ValueError):  # no room among the addresses; the file ends earlier
        return None
    with memoryview(window) as whole:
        return whole[start - begin :]


def _is_in_memory(file: BinaryIO, start: int, stop: int) -> bool:
    """True when a byte of every piece can be read without waiting."""
    if not _NOWAIT:
        return False
    byte = bytearray(1)
    try:
        return all(os.preadv(file.fileno(), [byte], at, _NOWAIT) for at in range(start, stop, PIECE_BYTES))
    except OSError:  # it would wait; the file system cannot tell; or it is no file of this machine
        return False


def _call_for(file: BinaryIO, start: int, length: int) -> None:
    """Have the system read ahead, while what is there is sent."""
    if hasattr(os, "posix_fadvise"):
        with suppress(OSError):
            os.posix_fadvise(file.fileno(), start, length, os.POSIX_FADV_WILLNEED)
