"""Routes of checkpoints: states of a training, each a model to look at, to download or to learn from."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from app.api.dependencies import BackendDep, OwnerDep
from app.api.file_answers import ARCHIVE, HEADERS_OF_FILE, REDIRECTED, answer_file, file_responses
from app.api.parameters import JobId, Limit, Order, show_page
from app.api.problems import problems
from app.api.representations import NOT_MODIFIED, represent
from app.api.response_headers import NEXT_PAGE
from app.api.schemas import Page, StudentFile, StudentFiles
from app.api.schemas_checkpoints import Checkpoint
from app.domain.errors import GoneError, InvalidRequestError, NotFoundError, RangeNotSatisfiableError
from app.services import checkpoints

router = APIRouter(prefix="/amalgamations/{job_id}/checkpoints", tags=["checkpoints"])

CheckpointName = Annotated[str, Path(description="`step-200`")]
_GONE = problems(NotFoundError, GoneError)
_FILE = problems(NotFoundError, GoneError, RangeNotSatisfiableError)


@router.get(
    "",
    operation_id="list_amalgamation_checkpoints",
    summary="The checkpoints of a job's training",
    responses=problems(NotFoundError, InvalidRequestError) | {200: {"headers": NEXT_PAGE}},
)
def list_amalgamation_checkpoints(
    *,
    request: Request,
    response: Response,
    job_id: JobId,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: Annotated[
        str | None,
        Query(
            pattern=r"^stu-[0-9a-f]{32}@step-[1-9][0-9]{0,8}$",
            description="Id of the last checkpoint of the page before.",
        ),
    ] = None,
    order: Order = "desc",
) -> Page[Checkpoint]:
    """In the order in which they were saved: a recipe's `checkpoints` says when, and how many stay.

    A job that has failed or was cancelled goes on from the newest one when it is resumed.
    """
    rows = checkpoints.page(backend, owner, job_id, limit=limit, after=after, descending=order == "desc")
    return show_page(
        request=request,
        response=response,
        rows=rows,
        limit=limit,
        shown=Checkpoint.of,
        page=Page[Checkpoint],
    )


@router.get(
    "/{checkpoint}",
    operation_id="get_amalgamation_checkpoint",
    summary="Show a checkpoint",
    responses=_GONE,
)
def get_amalgamation_checkpoint(
    job_id: JobId, checkpoint: CheckpointName, backend: BackendDep, owner: OwnerDep
) -> Checkpoint:
    """How far the training was, and how its loss."""
    return Checkpoint.of(checkpoints.get(backend, owner, job_id, checkpoint))


@router.get(
    "/{checkpoint}/files",
    operation_id="list_checkpoint_files",
    summary="The manifest: path, size and sha256 of every file",
    response_model=StudentFiles,
    responses=_GONE | NOT_MODIFIED,
)
@router.head(
    "/{checkpoint}/files",
    operation_id="head_checkpoint_files",
    summary="Headers of the manifest",
    response_class=Response,
    responses=_GONE | NOT_MODIFIED,
)
def list_checkpoint_files(
    *, job_id: JobId, checkpoint: CheckpointName, request: Request, backend: BackendDep, owner: OwnerDep
) -> Response:
    """A Hugging Face folder, as a student's; the optimizer's state is not part of it."""
    found = checkpoints.get(backend, owner, job_id, checkpoint)
    files = [StudentFile.model_validate(each) for each in found.row.files]
    return represent(request, StudentFiles(data=files))


@router.get(
    "/{checkpoint}/files/{path:path}",
    operation_id="download_checkpoint_file",
    summary="One file of a checkpoint",
    response_class=Response,
    responses=_FILE | file_responses() | REDIRECTED,
)
@router.head(
    "/{checkpoint}/files/{path:path}",
    operation_id="head_checkpoint_file",
    summary="Headers of one file of a checkpoint",
    response_class=Response,
    responses=_GONE | HEADERS_OF_FILE,
)
def download_checkpoint_file(
    *,
    job_id: JobId,
    checkpoint: CheckpointName,
    path: str,
    request: Request,
    backend: BackendDep,
    owner: OwnerDep,
) -> Response:
    """`Range` and `If-Range` go on with a download that was cut off; `ETag` is the file's sha256."""
    return answer_file(request, checkpoints.file(backend, owner, job_id, checkpoint, path), backend.store)


@router.get(
    "/{checkpoint}/download",
    operation_id="download_checkpoint",
    summary="All files of a checkpoint as one .tar",
    response_class=Response,
    responses=_FILE | file_responses(ARCHIVE),
)
@router.head(
    "/{checkpoint}/download",
    operation_id="head_checkpoint_download",
    summary="Headers of a checkpoint's .tar",
    response_class=Response,
    responses=_GONE | HEADERS_OF_FILE,
)
def download_checkpoint(
    *, job_id: JobId, checkpoint: CheckpointName, request: Request, backend: BackendDep, owner: OwnerDep
) -> Response:
    """The same bytes every time, so that `Range` works here too."""
    return answer_file(request, checkpoints.archive(backend, owner, job_id, checkpoint), backend.store)
