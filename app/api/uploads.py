"""Uploads: received into a staging folder of the store, piece by piece, refused while they stream in.

A raw body or `multipart/form-data`; nothing is held in memory, and whatever goes wrong leaves nothing behind.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastapi import Request
from fastapi.concurrency import contextmanager_in_threadpool, run_in_threadpool
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from app.api.dependencies import BackendDep, CallerDep
from app.api.multipart import MultipartBody, refuse_over
from app.api.problem_codes import (
    COMPRESSION_INVALID,
    EMPTY_BODY,
    IDEMPOTENCY_KEY_REUSED,
    MULTIPART_INVALID,
    TOO_MANY_UPLOADS,
    UPLOAD_INCOMPLETE,
)
from app.domain.access import Caller
from app.domain.errors import (
    InvalidRequestError,
    PayloadTooLargeError,
    RequestInFlightError,
    TooManyRequestsError,
    TooSlowError,
    UnsupportedFormatError,
)
from app.services.idempotency import Once
from app.settings import Settings
from app.storage import StoreError

PIECE = 1 << 20
"""Written at once, in a thread: the event loop never waits for the disk."""
FORM_OVERHEAD = 1 << 18
"""What a form may have around its file."""

UPLOAD_ERRORS = (
    IDEMPOTENCY_KEY_REUSED,
    RequestInFlightError,
    EMPTY_BODY,
    UPLOAD_INCOMPLETE,
    MULTIPART_INVALID,
    COMPRESSION_INVALID,
    PayloadTooLargeError,
    UnsupportedFormatError,
    TooSlowError,
    TOO_MANY_UPLOADS,
)


class UploadSlots:
    """How many uploads a process reads and checks at once; those beyond are asked to come again."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0

    @property
    def free(self) -> int:
        """How many more there may be now."""
        return self._limit - self._taken

    @contextmanager
    def taken(self) -> Iterator[None]:
        """One of them, until the block ends. In the event loop only, so that nobody comes in between.

        Raises:
            TooManyRequestsError: all are taken.
        """
        if self.free <= 0:
            raise TooManyRequestsError(
                f"{self._taken} uploads are being read already, as many as this process takes at once "
                f"(MUKA_MAX_UPLOADS is {self._limit}); send it again in a few seconds",
                code="too_many_uploads",
            )
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


@dataclass(frozen=True)
class Pace:
    """How much of an upload must come while the service waits for it, or it loses its place."""

    seconds: float
    """Of waiting; what the service itself takes for what has come is not the client's time."""
    wanted_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> "Pace":
        """At least a byte."""
        seconds = settings.upload_idle_seconds
        return cls(seconds, max(1, int(seconds * settings.upload_min_bytes_per_second)))

    def missed(self, came: int) -> TooSlowError:
        """What to answer when less came."""
        return TooSlowError(
            f"only {came:,} bytes of the upload came in {self.seconds:g} seconds (MUKA_UPLOAD_IDLE_SECONDS), "
            f"and {self.wanted_bytes:,} are the least (MUKA_UPLOAD_MIN_BYTES_PER_SECOND); nothing was "
            "stored: send it again, compressed (.gz, .zst) or over a faster line"
        )


@dataclass(frozen=True)
class Upload:
    """A file that has arrived."""

    folder: Path
    """The staging folder: removed after the request, with all that is in it."""
    path: Path
    filename: str | None
    media_type: str | None
    fields: dict[str, str] = field(default_factory=dict)
    """The other fields of a form."""


class _Body(Protocol):
    def write(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class ReceiveUpload:
    """A dependency that gives an `Upload`: the key is checked first, then the length, then the body comes."""

    def __init__(self, limit: Callable[[Settings], int], fields: frozenset[str]) -> None:
        self._limit = limit
        self._fields = fields

    async def __call__(
        self, request: Request, backend: BackendDep, _caller: CallerDep
    ) -> AsyncIterator[Upload]:
        """Receive, hand over, remove."""
        limit, pace = self._limit(backend.settings), Pace.of(backend.settings)
        _check_headers(request, limit)
        slots: UploadSlots = request.app.state.upload_slots
        with slots.taken():
            async with contextmanager_in_threadpool(backend.store.staging()) as folder:
                yield await self._receive(request, folder, limit, pace)

    async def _receive(self, request: Request, folder: Path, limit: int, pace: Pace) -> Upload:
        path = folder / "upload"
        kind, options = parse_options_header(request.headers.get("content-type"))
        if kind != b"multipart/form-data":
            with closing(_RawBody(path, limit)) as raw:
                await _pour(request, raw, pace)
            return Upload(folder, path, None, kind.decode("latin-1") or None)
        boundary = options.get(b"boundary", b"")
        with closing(MultipartBody(boundary, path, limit, self._fields)) as form:
            await _pour(request, form, pace)
        return Upload(folder, path, form.filename, form.media_type, form.fields)


class _RawBody:
    """The body is the file."""

    def __init__(self, path: Path, limit: int) -> None:
        self._file = path.open("xb")
        self._limit = limit
        self._size = 0

    def write(self, data: bytes) -> None:
        self._size += len(data)
        refuse_over(self._size, self._limit)
        self._file.write(data)

    def finish(self) -> None:
        if not self._size:
            raise InvalidRequestError("the body is empty; send the file as the body", code="empty_body")

    def close(self) -> None:
        self._file.close()


def once_of(upload: Upload, caller: Caller, route: str, key: str | None, details: list[Any]) -> Once | None:
    """The client's idempotency key. It stands for the bytes of the file and how they are to be read.

    So it can be looked up only when the file has arrived: a repeated upload costs its transfer, nothing else.
    """
    if key is None:
        return None
    with upload.path.open("rb") as file:
        content = hashlib.file_digest(file, "sha256").hexdigest()
    return Once.of(caller.api_key_id, route, key, [content, *map(str, details)])


async def _pour(request: Request, body: _Body, pace: Pace) -> None:
    pending = bytearray()
    try:
        async for piece in _pieces(request, pace):
            pending += piece
            if len(pending) >= PIECE:
                await run_in_threadpool(body.write, bytes(pending))
                pending.clear()
        await run_in_threadpool(_last, body, bytes(pending))
    except ClientDisconnect as error:
        raise InvalidRequestError("the upload was broken off", code="upload_incomplete") from error
    except OSError as error:
        raise StoreError(f"the upload cannot be written: {error.strerror}") from error


async def _pieces(request: Request, pace: Pace) -> AsyncIterator[bytes]:
    stream, clock = request.stream(), asyncio.get_running_loop().time
    left, came = pace.seconds, 0
    while True:
        started = clock()
        try:
            async with asyncio.timeout(left):
                piece = await anext(stream, None)
        except TimeoutError as error:
            raise pace.missed(came) from error
        if piece is None:
            return
        left, came = left - (clock() - started), came + len(piece)
        if came >= pace.wanted_bytes:
            left, came = pace.seconds, 0
        yield piece


def _last(body: _Body, data: bytes) -> None:
    body.write(data)
    body.finish()


def _check_headers(request: Request, limit: int) -> None:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedFormatError("send the file without `Content-Encoding`; name it .gz or .zst instead")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal():
        refuse_over(int(declared[:18]) - FORM_OVERHEAD, limit)
