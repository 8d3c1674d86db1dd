"""Routes of models: teachers that are not on the Hub."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.creating import answer_created
from app.api.dependencies import BackendDep, CallerDep, OwnerDep
from app.api.parameters import After, IdempotencyKey, Limit, Order, show_page
from app.api.problem_codes import (
    ARCHIVE_INVALID,
    ARCHIVE_UNSAFE,
    IN_USE,
    TEACHER_NOT_CLASSIFIER,
    TEACHER_UNSAFE_FORMAT,
    WEIGHTS_INVALID,
)
from app.api.problems import problems
from app.api.response_headers import CREATED, NEXT_PAGE
from app.api.schemas import Page
from app.api.schemas_models import REQUEST_BODY, CreatedModel, Model
from app.api.uploads import UPLOAD_ERRORS, ReceiveUpload, Upload, once_of
from app.domain.errors import InvalidModelError, NotFoundError
from app.ingestion.archive_kinds import archive_kind
from app.services import models
from app.services.idempotency import Answer

router = APIRouter(prefix="/models", tags=["models"])

ModelId = Annotated[str, Path(description="`mdl-…`")]
Name = Annotated[str | None, Query(max_length=200)]
_STORED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": CreatedModel,
        "description": "The same content was there already.",
        "headers": CREATED,
    },
    201: {"headers": CREATED},
}
_INVALID = (
    InvalidModelError,
    ARCHIVE_INVALID,
    ARCHIVE_UNSAFE,
    WEIGHTS_INVALID,
    TEACHER_UNSAFE_FORMAT,
    TEACHER_NOT_CLASSIFIER,
)
UploadDep = Annotated[
    Upload,
    Depends(ReceiveUpload(lambda settings: settings.max_model_bytes, frozenset({"name"})), scope="function"),
]


@router.post(
    "",
    status_code=201,
    operation_id="create_model",
    summary="Upload a teacher",
    response_model=CreatedModel,
    responses=problems(*_INVALID, *UPLOAD_ERRORS) | _STORED,
    openapi_extra={"requestBody": REQUEST_BODY},
)
def create_model(
    *,
    upload: UploadDep,
    backend: BackendDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
    filename: Annotated[Name, Query(description="Of a raw body; its ending tells the format.")] = None,
    name: Annotated[Name, Query(description="Instead of the archive's name.")] = None,
) -> Response:
    """One `.tar`, `.tar.gz` or `.zip` of the folder that `save_pretrained` has written.

    It must hold a sequence classifier with at least two labels, its weights as safetensors, and its
    tokenizer. Nothing in it is run, and nothing is stored when anything is wrong.
    """
    file = upload.filename or filename
    new = models.NewModel(
        path=upload.path,
        kind=archive_kind(filename=file, media_type=upload.media_type),
        name=upload.fields.get("name") or name or file,
    )
    once = once_of(upload, caller, "POST /models", idempotency_key, [new.kind, new.name])
    put = partial(models.create, backend, caller.owner, new)
    return answer_created(backend.claims.store(backend.database, once, put, _render), "/models")


def _render(made: models.CreatedModel) -> Answer:
    shown = CreatedModel.of(made.model).model_copy(update={"ignored_files": made.ignored_files})
    return Answer(made.model.id, shown.model_dump(mode="json"), 201 if made.is_new else 200)


@router.get(
    "",
    operation_id="list_models",
    summary="List models",
    responses={200: {"headers": NEXT_PAGE}},
)
def list_models(
    *,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Page[Model]:
    """The newest first, unless asked otherwise."""
    rows = models.page(backend, owner, limit=limit, after=after, descending=order == "desc")
    return show_page(
        request=request, response=response, rows=rows, limit=limit, shown=Model.of, page=Page[Model]
    )


@router.get(
    "/{model_id}", operation_id="get_model", summary="Show a model", responses=problems(NotFoundError)
)
def get_model(model_id: ModelId, backend: BackendDep, owner: OwnerDep) -> Model:
    """Labels, architecture and files."""
    return Model.of(models.get(backend, owner, model_id))


@router.delete(
    "/{model_id}",
    status_code=204,
    operation_id="delete_model",
    summary="Delete a model",
    responses=problems(NotFoundError, IN_USE),
)
def delete_model(model_id: ModelId, backend: BackendDep, owner: OwnerDep) -> None:
    """With its files, unless a job that has not ended needs it."""
    models.delete(backend, owner, model_id)
