"""Waiting for jobs and listening to them: any number of clients, one look at the database a job."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, contextmanager

from app.persistence.tables import Event
from app.services.backend import Backend
from app.services.job_feed import Feed
from app.services.jobs import Job
from app.services.lookups import Lookups


class LiveJobs:
    """The feeds of this process: made for the first listener of a job, gone with the last one."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._lookups = Lookups(backend)
        self._feeds: dict[str, Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._has_ended = False

    @property
    def feeds(self) -> int:
        """Jobs that are looked at."""
        return len(self._feeds)

    @property
    def listeners(self) -> int:
        """Streams and long polls that wait for news."""
        return sum(feed.listeners for feed in list(self._feeds.values()))

    async def wait(self, owner: str, job_id: str, is_enough: Callable[[Job], bool], seconds: float) -> Job:
        """The job as soon as it is enough, or as it is after `seconds`.

        Raises:
            NotFoundError: there is none.
        """
        seen = await self._lookups.get(owner, job_id)
        if seconds <= 0 or is_enough(seen):
            return seen
        try:
            async with asyncio.timeout(seconds):
                with self._listening(job_id) as feed:
                    async with aclosing(feed.looks()) as looks:
                        async for seen in looks:
                            if is_enough(seen):
                                break
        except TimeoutError:
            pass  # the caller's patience has ended, and it gets what there is
        return seen

    async def events(self, job_id: str, after: int, ping_seconds: float) -> AsyncGenerator[Event | None]:
        """Every event with a higher number, as it happens, to the last one of the job.

        None when nothing has happened for `ping_seconds`. It ends early when this process stops or the
        database fails: who has not seen the end asks again, from the last event on.
        """
        with self._listening(job_id) as feed:
            while True:
                fresh = await feed.after(after)
                for event in fresh:
                    yield event
                    after = event.sequence
                # No pause between what is known and the wait for more: no beat is missed.
                if not fresh and feed.is_over:
                    return
                if not fresh and not await feed.news.wait(ping_seconds):
                    yield None

    def end(self) -> None:
        """The process stops: let every listener go at once."""
        self._has_ended = True
        for feed in self._feeds.values():
            feed.end()

    async def close(self) -> None:
        """After `end`: wait for the last look, so that the database can be closed."""
        self.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def _listening(self, job_id: str) -> Iterator[Feed]:
        feed = self._feeds.get(job_id)
        if feed is None or feed.is_over:
            feed = self._feeds[job_id] = Feed(self._backend, job_id)
            self._start(feed)
        feed.listeners += 1
        try:
            yield feed
        finally:
            feed.listeners -= 1
            if feed.listeners == 0:
                feed.end()
                if self._feeds.get(job_id) is feed:
                    del self._feeds[job_id]

    def _start(self, feed: Feed) -> None:
        if self._has_ended:
            feed.end()
            return
        task = asyncio.create_task(feed.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
