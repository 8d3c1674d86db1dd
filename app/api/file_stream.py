"""Chunks of a file on their way to a client: the next one is read while this one is sent."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import aclosing
from functools import partial

from anyio import to_thread
from starlette.responses import StreamingResponse
from starlette.types import Send


class FileStream(StreamingResponse):
    """Sends what `chunks` yields; a client that leaves frees the file at once."""

    def __init__(
        self, chunks: Generator[bytes], status_code: int = 200, *, headers: Mapping[str, str]
    ) -> None:
        self._ahead = read_ahead(chunks)
        super().__init__(self._ahead, status_code, headers=headers)

    async def stream_response(self, send: Send) -> None:
        """As the framework's, and the file is closed however it ends."""
        async with aclosing(self._ahead):
            await super().stream_response(send)


async def read_ahead(chunks: Generator[bytes]) -> AsyncGenerator[bytes]:
    """The same chunks, each read by a thread while the one before it is in use; at most two in memory."""
    reading = _start(chunks)
    try:
        while chunk := await asyncio.shield(reading):
            reading = _start(chunks)
            yield chunk
    finally:  # perhaps in the middle of a read, which cannot be interrupted
        reading.add_done_callback(partial(_close, chunks))


def _start(chunks: Generator[bytes]) -> asyncio.Task[bytes]:
    return asyncio.create_task(to_thread.run_sync(next, chunks, b""))


def _close(chunks: Generator[bytes], last: asyncio.Task[bytes]) -> None:
    chunks.close()
    if not last.cancelled():
        last.exception()  # who left does not need to hear of it
