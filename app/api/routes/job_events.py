"""What happened to a job: a page of events, or all of them as they happen."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Query, Request, Response

from app.api.dependencies import BackendDep, LiveDep, OwnerDep
from app.api.event_stream import STREAM_RESPONSES, EventStream, wants_stream
from app.api.parameters import JobId, link_to_next
from app.api.problems import problems
from app.api.schemas import Event, EventPage
from app.domain.errors import NotFoundError
from app.services import jobs
from app.services.backend import Backend

router = APIRouter(prefix="/amalgamations", tags=["amalgamations"])

_LARGEST = 2**31 - 1


@router.get(
    "/{job_id}/events",
    operation_id="list_amalgamation_events",
    summary="What happened to a job",
    response_model=EventPage,
    responses=problems(NotFoundError) | STREAM_RESPONSES,
)
async def list_amalgamation_events(
    *,
    request: Request,
    job_id: JobId,
    backend: BackendDep,
    live: LiveDep,
    owner: OwnerDep,
    after: Annotated[int, Query(ge=0, le=_LARGEST, description="Only events with a higher number.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000, description="Events a page; a stream has no pages.")] = 100,
    last_event_id: Annotated[
        int | None,
        Header(
            alias="Last-Event-ID",
            ge=0,
            le=_LARGEST,
            description="Of a stream that was cut off: it goes on behind this number. Wins over `after`.",
        ),
    ] = None,
) -> Response:
    """Every change of status and stage, every metric, checkpoint and warning, in order.

    With `Accept: text/event-stream` they are sent as they happen, until the job has ended.
    """
    if wants_stream(request):
        known = after if last_event_id is None else last_event_id
        job = await to_thread.run_sync(jobs.get, backend, owner, job_id)
        if job.has_ended and job.row.events <= known:
            return Response(status_code=204, headers={"Vary": "Accept"})
        return EventStream(live.events(job_id, known, backend.settings.event_ping_seconds))
    page = await to_thread.run_sync(_page, backend, owner, job_id, after, limit)
    headers = {"Vary": "Accept"}
    if page.has_more:
        headers["Link"] = link_to_next(request, page.last_id)
    return Response(page.model_dump_json(), media_type="application/json", headers=headers)


def _page(backend: Backend, owner: str, job_id: str, after: int, limit: int) -> EventPage:
    rows = jobs.events_after(backend, owner, job_id, after, limit)
    shown = [Event.of(row) for row in rows[:limit]]
    first, last = (shown[0].sequence, shown[-1].sequence) if shown else (None, None)
    return EventPage(
        data=shown, has_more=len(rows) > limit, first_id=first, last_id=last, last_sequence=last or after
    )
