"""Bytes of a download: the same whether the system has them in memory, in part, or not at all."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from app.api.file_stream import read_ahead
from app.services import downloads
from app.services.downloads import MAPPED_BYTES, PROBE_BYTES, READ_BYTES, Download, StoredFile
from app.storage import ArtifactStore, StoreError

CONTENT = os.urandom(3 * MAPPED_BYTES + 12_345)


@pytest.fixture
def path(store: ArtifactStore) -> Path:
    with store.staging() as folder:
        (folder / "file").write_bytes(CONTENT)
        store.put_file("students/s/file", folder / "file")
    return store.local_path("students/s/file")


def _download(size: int = len(CONTENT)) -> Download:
    return Download("x.tar", [b"head", StoredFile("students/s/file", size, "0" * 64), b"tail"])


def _forget(path: Path, start: int) -> None:
    """Have the system read it from the disk again from there on."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), start, 0, os.POSIX_FADV_DONTNEED)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")
@pytest.mark.parametrize("from_disk", [None, 0, 3 * PROBE_BYTES, MAPPED_BYTES + 4096])
def test_every_byte_comes_wherever_it_is(store: ArtifactStore, path: Path, from_disk: int | None) -> None:
    path.read_bytes()
    if from_disk is not None:
        _forget(path, from_disk)
    for start, stop in ((0, len(CONTENT) + 8), (3, MAPPED_BYTES + 17), (MAPPED_BYTES, MAPPED_BYTES)):
        chunks = [chunk for chunk in _download().read(store, start, stop) if chunk is not None]
        assert b"".join(chunks) == (b"head" + CONTENT + b"tail")[start:stop]
        assert all(0 < len(chunk) <= MAPPED_BYTES for chunk in chunks)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can tell")
def test_a_stream_has_all_of_what_only_the_disk_has(store: ArtifactStore, path: Path) -> None:
    _forget(path, 0)

    async def main() -> bytes:
        return b"".join([chunk async for chunk in read_ahead(_download().read(store, 0, len(CONTENT) + 8))])

    assert asyncio.run(main()) == b"head" + CONTENT + b"tail"


@pytest.mark.skipif(not downloads._NOWAIT, reason="only Linux can tell")
def test_who_is_in_the_middle_of_a_file_keeps_what_it_has_of_it_when_it_is_deleted(
    store: ArtifactStore, path: Path
) -> None:
    path.read_bytes()
    chunks = _download().read(store, 4, len(CONTENT) + 4)
    assert next(chunks) is None
    first = next(chunks)
    path.unlink()
    assert first == CONTENT[:MAPPED_BYTES]
    assert b"".join([chunk for chunk in chunks if chunk is not None]) == CONTENT[MAPPED_BYTES:]


@pytest.mark.skipif(not downloads._NOWAIT, reason="only Linux can tell")
def test_nothing_is_waited_for_that_is_in_memory(store: ArtifactStore, path: Path) -> None:
    path.read_bytes()
    assert list(_download().read(store, 0, len(CONTENT) + 8)).count(None) == 1, "to open it"


def test_where_nobody_can_tell_every_chunk_is_waited_for(
    store: ArtifactStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_NOWAIT", 0)
    chunks = list(_download().read(store, 0, len(CONTENT) + 8))
    assert b"".join(chunk for chunk in chunks if chunk) == b"head" + CONTENT + b"tail"
    assert chunks.count(None) == 1 + -(-len(CONTENT) // READ_BYTES)


def test_a_file_that_ends_too_early_is_an_error(store: ArtifactStore, path: Path) -> None:
    with pytest.raises(StoreError, match="1 bytes too early"):
        list(_download(len(CONTENT) + 1).read(store, 0, len(CONTENT) + 8))
