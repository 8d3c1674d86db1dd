"""Bytes of a download: the same whether the system has them in memory, in part, or not at all."""

import asyncio
import gc
import os
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.types import Message

from app.api.file_stream import FileStream, read_ahead
from app.services import downloads
from app.services.downloads import PIECE_BYTES, READ_BYTES, WINDOW_BYTES, Download, StoredFile
from app.storage import ArtifactStore, StoreError

CONTENT = os.urandom(3 * WINDOW_BYTES + 12_345)


@pytest.fixture
def path(store: ArtifactStore) -> Path:
    with store.staging() as folder:
        (folder / "file").write_bytes(CONTENT)
        store.put_file("students/s/file", folder / "file")
    return store.local_path("students/s/file")


def _can_tell() -> bool:
    """Linux, and a file system that says what it has in memory: tmpfs does not."""
    if sys.platform != "linux":
        return False
    with tempfile.TemporaryFile() as file:
        file.write(b"x")
        file.flush()
        try:
            return os.preadv(file.fileno(), [bytearray(1)], 0, os.RWF_NOWAIT) == 1
        except OSError:
            return False


only_where_it_can_be_told = pytest.mark.skipif(not _can_tell(), reason="the system does not tell")


def _holds(path: Path) -> bool:
    """This process has the file open, or mapped."""
    mapped = str(path) in Path("/proc/self/maps").read_text(encoding="utf-8")
    return mapped or any(_target(each) == str(path) for each in Path("/proc/self/fd").iterdir())


def _target(link: Path) -> str:
    with suppress(OSError):  # that of the listing itself is gone already
        return str(link.readlink())
    return ""


def _download(size: int = len(CONTENT)) -> Download:
    return Download("x.tar", [b"head", StoredFile("students/s/file", size, "0" * 64), b"tail"])


def _forget(path: Path, start: int) -> None:
    """Have the system read it from the disk again from there on."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), start, 0, os.POSIX_FADV_DONTNEED)


@only_where_it_can_be_told
@pytest.mark.parametrize("from_disk", [None, 0, 3 * PIECE_BYTES, WINDOW_BYTES + 4096])
def test_every_byte_comes_wherever_it_is(store: ArtifactStore, path: Path, from_disk: int | None) -> None:
    path.read_bytes()
    if from_disk is not None:
        _forget(path, from_disk)
    for start, stop in ((0, len(CONTENT) + 8), (3, WINDOW_BYTES + 17), (WINDOW_BYTES, WINDOW_BYTES)):
        chunks = [chunk for chunk in _download().read(store, start, stop) if chunk is not None]
        assert b"".join(chunks) == (b"head" + CONTENT + b"tail")[start:stop]
        assert all(0 < len(chunk) <= WINDOW_BYTES for chunk in chunks)


@only_where_it_can_be_told
def test_a_stream_has_all_of_what_only_the_disk_has(store: ArtifactStore, path: Path) -> None:
    _forget(path, 0)

    async def main() -> bytes:
        return b"".join([chunk async for chunk in read_ahead(_download().read(store, 0, len(CONTENT) + 8))])

    assert asyncio.run(main()) == b"head" + CONTENT + b"tail"


@only_where_it_can_be_told
@pytest.mark.parametrize("leaves_after", [1, 2])
def test_who_leaves_in_the_middle_leaves_no_file_open_and_nothing_mapped(
    store: ArtifactStore, path: Path, leaves_after: int
) -> None:
    path.read_bytes()

    async def main() -> None:
        sent = asyncio.Semaphore(0)

        async def send(message: Message) -> None:
            if message.get("body"):
                sent.release()
                await asyncio.sleep(0 if sent._value < leaves_after else 60)

        async def receive() -> Message:
            await asyncio.sleep(60)
            return {"type": "http.disconnect"}

        chunks = _download().read(store, 4, len(CONTENT) + 4)
        answer = asyncio.create_task(FileStream(chunks, headers={})({"type": "http"}, receive, send))
        for _ in range(leaves_after):
            await sent.acquire()
        assert _holds(path)
        answer.cancel()
        with pytest.raises(asyncio.CancelledError) as left:
            await answer
        for _ in range(100):  # a thread may be in the middle of a read
            if not _holds(path):
                break
            await asyncio.sleep(0.05)
        assert not _holds(path), "while the frames of what was interrupted are still there"
        del left

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


@only_where_it_can_be_told
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
