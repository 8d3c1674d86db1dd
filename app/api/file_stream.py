"""Chunks of a file on their way to a client."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import TypeAlias

from anyio import to_thread
from starlette.responses import StreamingResponse
from starlette.types import Send

from app.services.downloads import Chunk

Chunks: TypeAlias = Generator[Chunk | None]
"""None comes before a chunk that is to be waited for."""


class FileStream(StreamingResponse):
    """Sends what `chunks` yields; a client that leaves frees the file at once."""

    def __init__(self, chunks: Chunks, status_code: int = 200, *, headers: Mapping[str, str]) -> None:
        self._ahead = read_ahead(chunks)
        super().__init__(self._ahead, status_code, headers=headers)

    async def stream_response(self, send: Send) -> None:
        """As the framework's, and the file is closed however it ends."""
        async with aclosing(self._ahead):
            await super().stream_response(send)


async def read_ahead(chunks: Chunks) -> AsyncGenerator[Chunk]:
    """The same chunks, each taken before the one before it is in use: two of them at a time.

    What is to be waited for is read by a thread. What is there is taken at once: the way to a thread and back
    takes longer than to copy a chunk, and on busy cores much longer.
    """
    chunk: Chunk = b""
    ahead = _take(chunks)
    try:
        while chunk := await asyncio.shield(ahead) if isinstance(ahead, asyncio.Task) else ahead:
            ahead = _take(chunks)
            yield chunk
            await asyncio.sleep(0)  # who takes everything at once must not keep the others waiting
    finally:
        _let_go(chunk)
        if isinstance(ahead, asyncio.Task):  # perhaps in the middle of a read, which cannot be interrupted
            ahead.add_done_callback(partial(_close, chunks))
        else:
            _let_go(ahead)
            chunks.close()


def _take(chunks: Chunks) -> Chunk | asyncio.Task[Chunk]:
    chunk = next(chunks, b"")
    return asyncio.create_task(to_thread.run_sync(_wait, chunks)) if chunk is None else chunk


def _wait(chunks: Chunks) -> Chunk:
    while (chunk := next(chunks, b"")) is None:  # there may be several things to wait for
        pass
    return chunk


def _close(chunks: Chunks, last: asyncio.Task[Chunk]) -> None:
    if not last.cancelled() and last.exception() is None:  # who left does not need to hear of it
        _let_go(last.result())
    chunks.close()


def _let_go(chunk: Chunk) -> None:
    """Now, and not when the frames of an interrupted task are collected: the file is open as long.

    A connection that has not sent all of it has a hold of its own.
    """
    if isinstance(chunk, memoryview):
        with suppress(BufferError):  # it does so right now
            chunk.release()
