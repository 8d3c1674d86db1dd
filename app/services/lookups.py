"""Jobs that many clients ask for at once, looked up with one question."""

from collections.abc import Sequence

from app.domain.errors import NotFoundError
from app.domain.identifiers import Prefix, has_prefix
from app.services import jobs
from app.services.backend import Backend
from app.services.jobs import Job
from app.services.together import Together

MOST_AT_ONCE = 100


class Lookups:
    """One question to the database at a time. Of one event loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._together = Together(self._look_up, MOST_AT_ONCE)

    async def get(self, owner: str, job_id: str) -> Job:
        """The owner's job.

        Raises:
            NotFoundError: there is none, or it is another owner's.
            SQLAlchemyError: the database failed.
        """
        job = await self._together.ask(job_id) if has_prefix(job_id, Prefix.AMALGAMATION) else None
        if job is None or job.row.owner != owner:
            raise NotFoundError(f"there is no amalgamation {job_id[:100]!r}")
        return job

    def _look_up(self, job_ids: Sequence[str]) -> list[Job | None]:
        found = jobs.get_all(self._backend, job_ids)
        return [found.get(job_id) for job_id in job_ids]
