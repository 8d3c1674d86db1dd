"""A job's events as they happen: server-sent events, and how to go on when the stream is cut."""

import time
from collections.abc import Callable, Iterator

import httpx
from pydantic import ValidationError

from app.client.errors import ConnectionFailedError, ServiceError, UnexpectedAnswerError
from app.client.objects import Amalgamation, Event
from app.client.pages import every
from app.client.transport import Transport
from app.domain.status import TERMINAL

SILENCE_SECONDS = 45.0
"""A stream says something every 15 seconds; a connection silent for this long is broken."""

OUTAGE_SECONDS = 60.0
"""A service that does not answer for this long (longer than a restart takes) is an error."""

PAUSE_SECONDS = 1.0
"""Before asking again, when a stream was cut."""

_MEDIA_TYPE = "text/event-stream"


class EventStream:
    """Every event of a job behind `after`, each one once, to the one that ends the job.

    Cut connections and restarts of the service are bridged: the next stream goes on behind the last event.

    Args:
        transport: to the service.
        job_id: the job.
        after: number of the last event that is known.
        on_idle: called when the service says that nothing has happened for a while.
    """

    def __init__(
        self, transport: Transport, job_id: str, after: int = 0, on_idle: Callable[[], None] | None = None
    ) -> None:
        self._transport, self._job_path = transport, f"/amalgamations/{job_id}"
        self._after, self._on_idle = after, on_idle
        self._is_over = False
        self._heard = time.monotonic()

    def __iter__(self) -> Iterator[Event]:
        """The events.

        Raises:
            ConnectionFailedError, ServiceError: the service has been away for longer than a restart takes.
            NotFoundError: there is no such job.
        """
        while True:
            try:
                yield from self._once()
            except (ConnectionFailedError, ServiceError):
                if time.monotonic() - self._heard > OUTAGE_SECONDS:
                    raise
            if self._is_over:
                return
            time.sleep(PAUSE_SECONDS)

    def _once(self) -> Iterator[Event]:
        headers = {"Accept": _MEDIA_TYPE, "Last-Event-ID": str(self._after)}
        with self._transport.stream(f"{self._job_path}/events", headers, timeout=SILENCE_SECONDS) as answer:
            is_stream = answer.headers.get("Content-Type", "").startswith(_MEDIA_TYPE)
            self._is_over = answer.status_code == 204
            if is_stream:
                yield from self._read(answer)
        if not is_stream and not self._is_over:
            yield from self._newest()

    def _read(self, answer: httpx.Response) -> Iterator[Event]:
        content: list[str] = []
        for line in _lines(answer):
            name, _, value = line.partition(":")
            if name == "data":
                content.append(value.removeprefix(" "))
            elif not line and content:
                yield self._take(_event("\n".join(content)))
                content.clear()
            elif line and not name:
                self._idle()

    def _newest(self) -> Iterator[Event]:
        """From an older service, which has pages only."""
        has_ended = self._transport.fetch(Amalgamation, "GET", self._job_path).has_ended
        behind = {"after": self._after or None}
        for event in every(self._transport, Event, f"{self._job_path}/events", behind, page_size=100):
            yield self._take(event)
        self._is_over = has_ended
        self._idle()

    def _take(self, event: Event) -> Event:
        self._heard, self._after = time.monotonic(), event.sequence
        # The service ends the stream; an event alone is no end, for a job may have been resumed since.
        self._is_over = event.type == "status" and event.data.get("status") in TERMINAL
        return event

    def _idle(self) -> None:
        self._heard = time.monotonic()
        if self._on_idle:
            self._on_idle()


def _lines(answer: httpx.Response) -> Iterator[str]:
    """Split at line feeds only: JSON may hold other characters that Python takes for ends of lines."""
    rest = b""
    for piece in answer.iter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", "replace")


def _event(content: str) -> Event:
    try:
        return Event.model_validate_json(content)
    except ValidationError as error:
        raise UnexpectedAnswerError(f"this is no event of muka: {content[:200]!r}") from error
