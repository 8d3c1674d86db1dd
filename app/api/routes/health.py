"""Is the process alive, and can it work?"""

from typing import Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel

from app.api.problems import problems
from app.domain.errors import NotReadyError
from app.services.readiness import Readiness

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """All is well."""

    status: Literal["ok"] = "ok"


@router.get("/healthz", operation_id="get_health", summary="Is the process alive?")
async def get_health() -> Health:  # no thread: it answers also when all of them wait for the database
    """Answers as long as the process does; looks at nothing else."""
    return Health()


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Do database, broker and store answer?",
    responses=problems(NotReadyError),
)
def get_readiness(request: Request) -> Health:
    """503 names the parts that do not answer."""
    readiness: Readiness = request.app.state.readiness
    if failing := readiness.failing():
        raise NotReadyError(f"not answering: {', '.join(failing)}; see the service's log and settings")
    return Health()
