"""Jobs that many clients ask for at once, looked up with one question."""

import asyncio

from anyio import to_thread

from app.domain.errors import NotFoundError
from app.domain.identifiers import Prefix, has_prefix
from app.services import jobs
from app.services.backend import Backend
from app.services.jobs import Job

MOST_AT_ONCE = 100


class Lookups:
    """One question to the database at a time; who comes meanwhile shares the next one. Of one event loop.

    An answer is never older than its request: nobody joins a question that is already asked.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._waiting: dict[str, asyncio.Future[Job | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def get(self, owner: str, job_id: str) -> Job:
        """The owner's job.

        Raises:
            NotFoundError: there is none, or it is another owner's.
            SQLAlchemyError: the database failed.
        """
        job = await self._next(job_id) if has_prefix(job_id, Prefix.AMALGAMATION) else None
        if job is None or job.row.owner != owner:
            raise NotFoundError(f"there is no amalgamation {job_id[:100]!r}")
        return job

    async def _next(self, job_id: str) -> Job | None:
        answer = self._waiting.get(job_id)
        if answer is None:
            answer = self._waiting[job_id] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(answer)  # who leaves does not take it from the others

    async def _ask(self) -> None:
        try:
            while self._waiting:
                await self._ask_for([*self._waiting][:MOST_AT_ONCE])
        finally:  # or nobody would ever ask again
            self._asking = None

    async def _ask_for(self, job_ids: list[str]) -> None:
        asked = {job_id: self._waiting.pop(job_id) for job_id in job_ids}
        try:
            found = await to_thread.run_sync(jobs.get_all, self._backend, job_ids)
        except Exception as error:  # noqa: BLE001  (told to each of those who wait)
            for answer in asked.values():
                answer.set_exception(error)
        else:
            for job_id, answer in asked.items():
                answer.set_result(found.get(job_id))
