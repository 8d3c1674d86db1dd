"""Routes of amalgamations: the jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from app.api.creating import answer_created
from app.api.dependencies import BackendDep, CallerDep, LiveDep, OwnerDep, SubmissionsDep
from app.api.parameters import (
    METADATA_FILTER,
    After,
    IdempotencyKey,
    JobId,
    Limit,
    Order,
    metadata_filter,
    show_page,
)
from app.api.problem_codes import (
    IDEMPOTENCY_KEY_REUSED,
    IN_USE,
    INPUTS_MISSING,
    JOB_ENDED,
    JOB_LIVE,
    STUDENT_KEPT,
    TOO_MANY_QUEUED_JOBS,
)
from app.api.problems import problems
from app.api.recipe_body import RecipeBody
from app.api.representations import NOT_MODIFIED, etag_of, is_known, represent
from app.api.response_headers import CREATED, ETAG, NEXT_PAGE, RETRY_AFTER, described
from app.api.schemas import Amalgamation, Page
from app.api.schemas_checkpoints import Cancel
from app.domain.errors import (
    HubUnavailableError,
    InvalidCorpusError,
    InvalidRequestError,
    NotFoundError,
    PayloadTooLargeError,
    RequestInFlightError,
)
from app.domain.status import Status
from app.services import jobs, resuming
from app.services.jobs import Job
from app.services.submission import Submission

router = APIRouter(prefix="/amalgamations", tags=["amalgamations"])

POLL_AGAIN = {"Retry-After": "2"}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "The job is queued.",
        "headers": CREATED | RETRY_AFTER,
    }
}


@router.post(
    "",
    status_code=202,
    operation_id="create_amalgamation",
    summary="Submit a job",
    response_model=Amalgamation,
    responses=_ACCEPTED
    | problems(
        InvalidRequestError,
        InvalidCorpusError,
        IDEMPOTENCY_KEY_REUSED,
        RequestInFlightError,
        PayloadTooLargeError,
        TOO_MANY_QUEUED_JOBS,
        HubUnavailableError,
    ),
)
async def create_amalgamation(
    body: RecipeBody, submissions: SubmissionsDep, caller: CallerDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Check teachers, labels and texts, and queue the job. Nothing is stored when anything is wrong."""
    answer = await submissions.submit(Submission(caller, body.recipe, body.faults, idempotency_key, _render))
    return answer_created(answer, "/amalgamations", POLL_AGAIN)


def _render(job: Job) -> dict[str, Any]:
    return Amalgamation.of(job).model_dump(mode="json")


@router.get(
    "",
    operation_id="list_amalgamations",
    summary="List jobs",
    responses={200: {"headers": NEXT_PAGE}},
    openapi_extra=METADATA_FILTER,
)
def list_amalgamations(
    *,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    metadata: Annotated[dict[str, str], Depends(metadata_filter)],
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
    status: Annotated[Status | None, Query(description="Only jobs in this status.")] = None,
) -> Page[Amalgamation]:
    """Filter by `status`, and by your own metadata: `?metadata[team]=support`."""
    rows = jobs.page(
        backend,
        owner,
        limit=limit,
        after=after,
        descending=order == "desc",
        status=status,
        metadata=metadata,
    )
    return show_page(
        request=request,
        response=response,
        rows=rows,
        limit=limit,
        shown=Amalgamation.of,
        page=Page[Amalgamation],
    )


@router.get(
    "/{job_id}",
    operation_id="get_amalgamation",
    summary="Show a job",
    response_model=Amalgamation,
    responses=problems(NotFoundError)
    | {200: {"headers": ETAG | RETRY_AFTER}, 304: NOT_MODIFIED[304] | {"headers": ETAG | RETRY_AFTER}},
)
async def get_amalgamation(
    request: Request,
    job_id: JobId,
    live: LiveDep,
    owner: OwnerDep,
    wait: Annotated[
        float,
        Query(
            ge=0,
            le=60,
            allow_inf_nan=False,
            description="Seconds to hold the answer back until status or stage change (with "
            "`If-None-Match`: until anything changes), or the job has ended.",
        ),
    ] = 0,
) -> Response:
    """Poll with `If-None-Match`, or let the service wait for you with `?wait=30`."""
    first: list[tuple[str, str | None]] = []

    def is_enough(job: Job) -> bool:
        state = (job.row.status, job.row.stage)
        first.append(state)
        if "if-none-match" in request.headers:
            etag = etag_of(Amalgamation.of(job).model_dump_json().encode())
            return job.has_ended or not is_known(request, etag)
        return job.has_ended or state != first[0]

    job = await live.wait(owner, job_id, is_enough, wait)
    return represent(request, Amalgamation.of(job), {} if job.has_ended else POLL_AGAIN)


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_amalgamation",
    summary="Cancel a job",
    response_model=Amalgamation,
    responses=problems(NotFoundError, JOB_ENDED)
    | {
        202: {
            "model": Amalgamation,
            "description": "Its worker will end it.",
            "headers": RETRY_AFTER,
        }
    },
)
def cancel_amalgamation(
    *, job_id: JobId, response: Response, backend: BackendDep, owner: OwnerDep, body: Cancel | None = None
) -> Amalgamation:
    """A queued job ends at once (200), a running one as soon as its worker has let go (202).

    Its checkpoints stay for a while: it can be resumed. With `keep_best` it has a student as well, unless no
    step of the training was done; its newest event tells.
    """
    job = jobs.cancel(backend, owner, job_id, keep_best=body is not None and body.keep_best)
    if not job.has_ended:
        response.status_code = 202
        response.headers.update(POLL_AGAIN)
    return Amalgamation.of(job)


@router.post(
    "/{job_id}/resume",
    status_code=202,
    operation_id="resume_amalgamation",
    summary="Resume a job that has failed or was cancelled",
    responses=problems(NotFoundError, JOB_ENDED, JOB_LIVE, STUDENT_KEPT, INPUTS_MISSING, TOO_MANY_QUEUED_JOBS)
    | {202: {"headers": described(Location="Where it is.") | RETRY_AFTER}},
)
def resume_amalgamation(
    job_id: JobId, response: Response, backend: BackendDep, owner: OwnerDep
) -> Amalgamation:
    """It is queued again and goes on from its newest checkpoint, or without one from stored teacher outputs.

    Attempts and events count on; `max_runtime_seconds` and lost workers start anew.
    """
    job = resuming.resume(backend, owner, job_id)
    response.headers.update({"Location": f"/amalgamations/{job_id}"} | POLL_AGAIN)
    return Amalgamation.of(job)


@router.delete(
    "/{job_id}",
    status_code=204,
    operation_id="delete_amalgamation",
    summary="Delete a job that has ended",
    responses=problems(NotFoundError, JOB_LIVE, IN_USE),
)
def delete_amalgamation(job_id: JobId, backend: BackendDep, owner: OwnerDep) -> None:
    """With its events and working files; its student stays."""
    jobs.delete(backend, owner, job_id)
