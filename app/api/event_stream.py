"""Server-sent events: one stream of a job's events, which a client resumes by their numbers."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache
from typing import Any

from fastapi import Request
from starlette.responses import StreamingResponse
from starlette.types import Send

from app.api.response_headers import NEXT_PAGE
from app.api.schemas import Event
from app.persistence import tables

MEDIA_TYPE = "text/event-stream"
PING = b": ping\n\n"
RECONNECT = b"retry: 2000\n\n"
"""Sent first: milliseconds until a browser that was cut off asks again."""

STREAM_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events, or with `Accept: text/event-stream` all of them as they happen.",
        "headers": NEXT_PAGE,
        "content": {
            MEDIA_TYPE: {
                "schema": {
                    "type": "string",
                    "description": "Server-sent events: `id` is the sequence number, `event` the type, "
                    "`data` the event as JSON. A comment when nothing happens; the stream ends after the "
                    "event that ends the job.",
                },
                "examples": {
                    "event": {
                        "value": 'id: 2\nevent: status\ndata: {"sequence":2,"type":"status",'
                        '"message":"claimed by gpu-1","data":{"status":"running","attempt":1},'
                        '"created_at":"2026-11-23T06:00:01Z"}\n\n'
                    }
                },
            }
        },
    },
    204: {"description": "The job has ended and this stream is at its end: do not reconnect."},
}


def wants_stream(request: Request) -> bool:
    """True when `Accept` prefers server-sent events to JSON."""
    weights = {
        name: _weight(rest) for name, rest in map(_split, request.headers.get("accept", "").split(","))
    }
    streaming = weights.get(MEDIA_TYPE, 0.0)
    return streaming > 0 and streaming >= weights.get("application/json", 0.0)


class EventStream(StreamingResponse):
    """Sends events until there are no more; a client that leaves frees everything at once."""

    media_type = MEDIA_TYPE

    def __init__(self, events: AsyncGenerator[tables.Event | None]) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept"}
        self._chunks = _chunks(events)
        super().__init__(self._chunks, headers=headers)

    async def stream_response(self, send: Send) -> None:
        """As the framework's, and the events are closed however it ends."""
        async with aclosing(self._chunks):
            await super().stream_response(send)


async def _chunks(events: AsyncGenerator[tables.Event | None]) -> AsyncGenerator[bytes]:
    async with aclosing(events) as opened:
        yield RECONNECT
        async for event in opened:
            yield PING if event is None else _encoded(event)


@lru_cache(maxsize=2048)
def _encoded(row: tables.Event) -> bytes:
    """Once for all listeners of a process: they are given the same row."""
    return f"id: {row.sequence}\nevent: {row.type}\ndata: {Event.of(row).model_dump_json()}\n\n".encode()


def _split(entry: str) -> tuple[str, str]:
    name, _, rest = entry.partition(";")
    return name.strip().lower(), rest


def _weight(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "q":
            try:
                return float(value)
            except ValueError:
                return 0.0
    return 1.0
