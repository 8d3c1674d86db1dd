"""Bytes that clients fetch, whole or in ranges: stored files, and what is laid out around them."""

import hashlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass

from app.storage import ArtifactStore, StoreError

CHUNK_BYTES = 1 << 20


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

    def read(self, store: ArtifactStore, start: int, stop: int) -> Generator[bytes]:
        """The bytes from `start` up to `stop`, in chunks: memory stays flat."""
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


def _read(store: ArtifactStore, part: bytes | StoredFile, start: int, stop: int) -> Iterator[bytes]:
    if isinstance(part, bytes):
        yield part[start:stop]
        return
    with store.open(part.key) as file:
        file.seek(start)
        left = stop - start
        while left > 0:
            chunk = file.read(min(CHUNK_BYTES, left))
            if not chunk:
                raise StoreError(f"{part.key} ends {left} bytes too early")
            left -= len(chunk)
            yield chunk
