"""Files on their way: the next chunk is read meanwhile, and who leaves in the middle leaves nothing open."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import aclosing

import pytest

from app.api.file_stream import Chunks, read_ahead
from app.services.downloads import Chunk
from app.storage import StoreError


class File:
    """Chunks, of which each may have to wait; knows what became of it."""

    def __init__(self, chunks: int) -> None:
        self.may_go_on, self.closed = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.reads = threading.Semaphore(0)
        """Released as each read begins."""
        self._chunks = chunks

    def chunks(self) -> Generator[bytes | None]:
        try:
            for number in range(self._chunks):
                yield None
                self.reads.release()
                assert self.may_go_on.wait(10)
                yield b"%d" % number
        finally:
            self.closed.set()


async def _all(chunks: Chunks) -> list[Chunk]:
    return [chunk async for chunk in read_ahead(chunks)]


def test_every_chunk_comes_in_its_order_and_the_file_is_closed() -> None:
    file = File(50)
    assert asyncio.run(_all(file.chunks())) == [b"%d" % number for number in range(50)]
    assert file.closed.is_set()


def test_one_chunk_is_read_ahead_and_no_more() -> None:
    file = File(50)

    async def main() -> None:
        async with aclosing(read_ahead(file.chunks())) as ahead:
            assert await anext(ahead) == b"0"
            assert await asyncio.to_thread(file.reads.acquire, timeout=10)
            assert await asyncio.to_thread(file.reads.acquire, timeout=10)
            assert not await asyncio.to_thread(file.reads.acquire, timeout=0.2)

    asyncio.run(main())


def test_who_leaves_in_the_middle_of_a_read_leaves_at_once_and_the_file_is_closed_after_it() -> None:
    file = File(50)
    file.may_go_on.clear()

    async def main() -> None:
        async def hear() -> None:
            async with aclosing(read_ahead(file.chunks())) as ahead:
                await anext(ahead)

        listener = asyncio.create_task(hear())
        assert await asyncio.to_thread(file.reads.acquire, timeout=10)
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
        assert not file.closed.is_set()
        file.may_go_on.set()
        assert await asyncio.to_thread(file.closed.wait, 10)

    asyncio.run(main())


def test_a_file_that_fails_is_told_to_whom_it_is_sent() -> None:
    def cut_off() -> Generator[bytes | None]:
        yield b"beginning"
        raise StoreError("ends too early")

    with pytest.raises(StoreError, match="too early"):
        asyncio.run(_all(cut_off()))


def test_what_is_there_is_taken_without_a_thread_and_others_come_in_between() -> None:
    me, took = threading.get_ident(), []

    def chunks() -> Generator[bytes | None]:
        for number in range(50):
            took.append(threading.get_ident())
            yield b"%d" % number

    async def main() -> list[int]:
        at: list[int] = []

        async def another() -> None:
            while len(at) < 10:
                at.append(len(took))
                await asyncio.sleep(0)

        other = asyncio.create_task(another())
        assert await _all(chunks()) == [b"%d" % number for number in range(50)]
        await other
        return at

    seen = asyncio.run(main())
    assert set(took) == {me}
    assert len(set(seen)) > 5, "it came to its turn while chunks were sent"


def test_several_waits_before_one_chunk_are_no_end() -> None:
    def chunks() -> Generator[bytes | None]:
        yield b"head"
        yield None  # to open the file
        yield None  # to read it
        yield b"body"
        yield None

    assert asyncio.run(_all(chunks())) == [b"head", b"body"]


def test_a_failure_where_nothing_is_waited_for_closes_the_file() -> None:
    closed = []

    def chunks() -> Generator[bytes | None]:
        try:
            yield b"beginning"
            raise StoreError("ends too early")
        finally:
            closed.append(True)

    with pytest.raises(StoreError, match="too early"):
        asyncio.run(_all(chunks()))
    assert closed == [True]
