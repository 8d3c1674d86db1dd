"""One job as its listeners hear it: one look at the database serves all of them in this process."""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Sequence

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import NotFoundError
from app.persistence.tables import Event
from app.services import jobs
from app.services.backend import Backend
from app.services.jobs import Job

LOOK_AGAIN_SECONDS = 0.5
"""How often a feed looks at its job while anybody listens."""

KEPT_EVENTS = 1000
"""Newest events in memory; who is further behind reads pages of the database until caught up."""


class Pulse:
    """Wakes all who wait for the next beat."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def beat(self) -> None:
        """Now."""
        self._next.set()
        self._next = asyncio.Event()

    async def wait(self, seconds: float | None = None) -> bool:
        """False when there was no beat within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._next.wait()
        except TimeoutError:
            return False
        return True


class Feed:
    """Looks at one job again and again, until it has ended or `end()` is called. Of one event loop."""

    def __init__(self, backend: Backend, job_id: str) -> None:
        self.listeners = 0
        self.is_over = False
        """Nothing more comes: the job has ended, the process stops, or the database failed (`error`)."""
        self.error: Exception | None = None
        self.news = Pulse()
        """Beats when there are new events, and when it is over."""
        self._looked = Pulse()
        self._backend, self._job_id = backend, job_id
        self._job: Job | None = None
        self._begun = self._finished = 0
        self._kept: list[Event] = []
        self._base: int | None = None
        """Number of the last event before those that are kept."""

    async def run(self) -> None:
        """Look, until it is over."""
        try:
            while not self.is_over:
                if await self._look():
                    await asyncio.sleep(LOOK_AGAIN_SECONDS)
        except (SQLAlchemyError, NotFoundError) as error:
            self.error = error
        finally:
            self.end()

    def end(self) -> None:
        """Let every listener go, with what it has not heard yet."""
        self.is_over = True
        self.news.beat()
        self._looked.beat()

    async def looks(self) -> AsyncGenerator[Job]:
        """The job as every look finds it that begins from now on: never older than what the caller knows.

        Raises:
            SQLAlchemyError: the database failed.
            NotFoundError: the job was deleted.
        """
        begun = self._begun
        while not self.is_over:
            await self._looked.wait()
            if self._job and (self._finished > begun or self._job.has_ended):
                yield self._job
        if self.error:
            raise self.error

    async def after(self, sequence: int) -> Sequence[Event]:
        """Known events with a higher number, oldest first; not always all of them."""
        if self._base is not None and sequence < self._base:
            return await to_thread.run_sync(jobs.events_page, self._backend, self._job_id, sequence)
        return self._kept[bisect_right(self._kept, sequence, key=lambda event: event.sequence) :]

    async def _look(self) -> bool:
        """False: there may be more events already."""
        self._begun += 1
        begun, known = self._begun, self._kept[-1].sequence if self._kept else self._base
        job, fresh = await to_thread.run_sync(jobs.look, self._backend, self._job_id, known, KEPT_EVENTS)
        self._job, self._finished = job, begun
        self._keep(fresh, job)
        # An event that the look at the job did not know of yet: it was resumed, and has not ended.
        is_all = len(fresh) < KEPT_EVENTS and (not fresh or fresh[-1].sequence <= job.row.events)
        self.is_over = self.is_over or (is_all and job.has_ended)
        if fresh:
            self.news.beat()
        self._looked.beat()
        return is_all

    def _keep(self, fresh: Sequence[Event], job: Job) -> None:
        if self._base is None:
            self._base = fresh[0].sequence - 1 if fresh else job.row.events
        self._kept += fresh
        if len(self._kept) > 2 * KEPT_EVENTS:
            self._base = self._kept[-KEPT_EVENTS - 1].sequence
            del self._kept[:-KEPT_EVENTS]
