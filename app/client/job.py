"""A job as the client holds it: what it is now, and how to wait for what it becomes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from app.client.checkpoints import cancel, checkpoints_of, resume
from app.client.errors import (
    ConnectionFailedError,
    JobCancelledError,
    JobFailedError,
    MukaClientError,
    WaitTimeoutError,
)
from app.client.event_stream import EventStream
from app.client.objects import Amalgamation, Checkpoint, Event, Failure, Progress, Student
from app.client.pages import every
from app.client.transport import Transport, seconds_to_wait

LONG_POLL_SECONDS = 30
"""How long the service may hold a question back until something changes."""

OUTAGE_SECONDS = 60.0
"""While waiting, a service that does not answer for this long (a restart) is no reason to give up."""

DEFAULT_POLL_SECONDS = 2.0
"""Between two questions, when the service does not say."""


class Job:
    """One amalgamation. The properties are those of the last answer; `refresh()` asks again."""

    def __init__(self, transport: Transport, amalgamation: Amalgamation) -> None:
        self._transport = transport
        self.amalgamation = amalgamation
        """The whole object as the service shows it."""
        self._etag: str | None = None
        self._retry_after: float | None = None

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.status}{f' ({self.stage})' if self.stage else ''}>"

    @property
    def id(self) -> str:
        """`amg-…`."""
        return self.amalgamation.id

    @property
    def name(self) -> str | None:
        """As the user gave it."""
        return self.amalgamation.name

    @property
    def status(self) -> str:
        """`queued`, `running`, `cancelling`, `succeeded`, `failed`, `cancelled`, or a newer one."""
        return self.amalgamation.status

    @property
    def stage(self) -> str | None:
        """What a running job does: `scoring`, `training`, …; newer services may know more stages."""
        return self.amalgamation.stage

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return self.amalgamation.progress

    @property
    def failure(self) -> Failure | None:
        """Why it failed."""
        return self.amalgamation.failure

    @property
    def report(self) -> dict[str, Any] | None:
        """What it found out, once it has succeeded."""
        return self.amalgamation.report

    @property
    def has_ended(self) -> bool:
        """True when it has succeeded, failed or was cancelled."""
        return self.amalgamation.has_ended

    def refresh(self) -> "Job":
        """Ask the service again."""
        self._ask({}, {})
        return self

    def wait(
        self,
        *,
        on_progress: Callable[["Job"], None] | None = None,
        timeout: float | None = None,
        poll_seconds: float | None = None,
    ) -> "Job":
        """Wait until the job has ended.

        Args:
            on_progress: called with the job after every answer, and once at the start.
            timeout: seconds until the caller gives up; the job goes on.
            poll_seconds: the least time between two questions; by default what the service asks for.

        Raises:
            JobFailedError: with code, message and hint.
            JobCancelledError: there will be no student.
            WaitTimeoutError: it has not ended in time.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        if on_progress:
            on_progress(self)
        while not self.has_ended:
            self._await_change(deadline, poll_seconds)
            if on_progress:
                on_progress(self)
        self._raise_unless_succeeded()
        return self

    def events(self, after: int = 0) -> Iterator[Event]:
        """What has happened since event `after`, oldest first; it ends with the newest of now."""
        return events_of(self._transport, self.id, after)

    def stream(self, after: int = 0, *, on_idle: Callable[[], None] | None = None) -> Iterator[Event]:
        """What happens from event `after` on, as it happens, to the event that ends the job.

        Args:
            after: number of the last event that you know.
            on_idle: called every 15 seconds or so in which nothing happens.
        """
        return iter(EventStream(self._transport, self.id, after, on_idle))

    def cancel(self, *, keep_best: bool = False) -> "Job":
        """Ask the service to end it; it is `cancelling` until its worker has let go.

        `keep_best`: what is trained by then becomes its student.
        """
        self._take(cancel(self._transport, self.id, keep_best=keep_best))
        return self

    def resume(self) -> "Job":
        """Let it go on from its newest checkpoint, when it has failed or was cancelled.

        Raises:
            ConflictError: it is in another status, has kept a student, or what it needs was deleted.
        """
        self._take(resume(self._transport, self.id))
        return self

    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """What its training has saved, the newest first; `students.download` takes their ids, too."""
        return checkpoints_of(self._transport, self.id)

    def student(self) -> Student:
        """The student of a job that has succeeded, or kept one when it was cancelled.

        Raises:
            JobFailedError, JobCancelledError: there is none.
            MukaClientError: there is none yet, or the job's method trains none.
        """
        if self.amalgamation.student_id is None:
            self._raise_unless_succeeded()
            if self.has_ended:
                raise MukaClientError(
                    f"{self.id} trained no student, as its method says: amalgamations.texts (`muka texts`) "
                    "has what the teachers say together about every text, amalgamations.report the figures"
                )
            raise MukaClientError(
                f"{self.id} is {self.status}: call wait() first, the student comes at the end"
            )
        return self._transport.fetch(Student, "GET", f"/students/{self.amalgamation.student_id}")

    def _raise_unless_succeeded(self) -> None:
        if self.status == "cancelled":
            raise JobCancelledError(self.id)
        if self.status == "failed":
            why = self.failure or Failure(message="the service gives no reason; see its log")
            raise JobFailedError(self.id, why.code, why.message, why.hint, retryable=why.retryable)

    def _await_change(self, deadline: float | None, poll_seconds: float | None) -> None:
        """One long poll, then a pause so that the service is not asked more often than it likes."""
        started = time.monotonic()
        left = LONG_POLL_SECONDS if deadline is None else deadline - started
        if left <= 0:
            raise WaitTimeoutError(
                f"{self.id} is still {self.status}; it goes on, and you can wait for it again"
            )
        self._ask_through_outages(max(1, int(min(left, LONG_POLL_SECONDS))))
        if self.has_ended:
            return
        pause = poll_seconds if poll_seconds is not None else self._retry_after or DEFAULT_POLL_SECONDS
        rest = started + pause - time.monotonic()
        if deadline is not None:
            rest = min(rest, deadline - time.monotonic())
        time.sleep(max(0.0, rest))

    def _ask_through_outages(self, hold_seconds: int) -> None:
        until = time.monotonic() + OUTAGE_SECONDS
        headers = {"If-None-Match": self._etag} if self._etag else {}
        while True:
            try:
                return self._ask({"wait": hold_seconds}, headers)
            except ConnectionFailedError:
                if time.monotonic() > until:
                    raise
                time.sleep(1)

    def _ask(self, params: dict[str, int], headers: dict[str, str]) -> None:
        answer = self._transport.send(
            "GET",
            f"/amalgamations/{self.id}",
            params=params,
            headers=headers,
            timeout=self._transport.timeout + params.get("wait", 0),
        )
        self._retry_after = seconds_to_wait(answer)
        if answer.status_code != 304:
            self._etag = answer.headers.get("ETag")
            self.amalgamation = self._transport.read(Amalgamation, answer)

    def _take(self, amalgamation: Amalgamation) -> None:
        self.amalgamation, self._etag = amalgamation, None


def events_of(transport: Transport, job_id: str, after: int) -> Iterator[Event]:
    """Pages of `GET /amalgamations/{id}/events`, one after the other."""
    parameters = {"after": after or None}
    return every(transport, Event, f"/amalgamations/{job_id}/events", parameters, page_size=100)
