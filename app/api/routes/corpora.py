"""Routes of corpora: the texts."""

from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from app.api.creating import answer_created
from app.api.dependencies import BackendDep, CallerDep, OwnerDep
from app.api.parameters import After, IdempotencyKey, Limit, Order, show_page
from app.api.problem_codes import IN_USE
from app.api.problems import problems
from app.api.response_headers import CREATED, NEXT_PAGE
from app.api.schemas import Page
from app.api.schemas_corpora import REQUEST_BODY, Corpus, CorpusPreview
from app.api.uploads import UPLOAD_ERRORS, ReceiveUpload, Upload, once_of
from app.domain.errors import GoneError, InvalidCorpusError, NotFoundError
from app.ingestion.corpus_formats import corpus_format
from app.ingestion.rows import Columns
from app.persistence import tables
from app.services import corpora
from app.services.idempotency import Answer

router = APIRouter(prefix="/corpora", tags=["corpora"])

CorpusId = Annotated[str, Path(description="`cor-…`")]
Name = Annotated[str | None, Query(max_length=200)]
_STORED: dict[int | str, dict[str, Any]] = {
    200: {
        "model": Corpus,
        "description": "The same content was there already.",
        "headers": CREATED,
    },
    201: {"headers": CREATED},
}
FORM_FIELDS = frozenset({"format", "text_column", "label_column", "name"})
UploadDep = Annotated[
    Upload,
    Depends(ReceiveUpload(lambda settings: settings.max_corpus_bytes, FORM_FIELDS), scope="function"),
]


@router.post(
    "",
    status_code=201,
    operation_id="create_corpus",
    summary="Upload texts",
    response_model=Corpus,
    responses=problems(InvalidCorpusError, *UPLOAD_ERRORS) | _STORED,
    openapi_extra={"requestBody": REQUEST_BODY},
)
def create_corpus(
    *,
    upload: UploadDep,
    backend: BackendDep,
    caller: CallerDep,
    idempotency_key: IdempotencyKey = None,
    filename: Annotated[Name, Query(description="Of a raw body; its ending tells the format.")] = None,
    format: Annotated[Name, Query(description="`txt`, `jsonl`, `csv`, `tsv`, `parquet`, `csv.gz` …")] = None,  # noqa: A002
    text_column: Annotated[Name, Query(description="`text` when it is not given.")] = None,
    label_column: Annotated[Name, Query(description="Of gold labels, for evaluations only.")] = None,
    name: Annotated[Name, Query(description="Instead of the file's name.")] = None,
) -> Response:
    """A form with the part `file`, or the file as the body with `?filename=`.

    One text a line (`.txt`), `.jsonl`, `.csv`, `.tsv` or `.parquet`, each also with `.gz` or `.zst`. The
    same content twice is one corpus. When anything is wrong, the first ten places are named and nothing
    is stored.
    """
    form, file = upload.fields, upload.filename or filename
    new = corpora.NewCorpus(
        path=upload.path,
        format=corpus_format(
            stated=form.get("format") or format, filename=file, media_type=upload.media_type
        ),
        columns=Columns(
            text=form.get("text_column") or text_column or "text",
            label=form.get("label_column") or label_column or None,
        ),
        name=form.get("name") or name or file,
    )
    once = once_of(upload, caller, "POST /corpora", idempotency_key, [new.format, new.columns, new.name])
    put = partial(corpora.create, backend, caller.owner, new)
    return answer_created(backend.claims.store(backend.database, once, put, _render), "/corpora")


def _render(made: tuple[tables.Corpus, bool]) -> Answer:
    corpus, is_new = made
    return Answer(corpus.id, Corpus.of(corpus).model_dump(mode="json"), 201 if is_new else 200)


@router.get(
    "",
    operation_id="list_corpora",
    summary="List corpora",
    responses={200: {"headers": NEXT_PAGE}},
)
def list_corpora(
    *,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Page[Corpus]:
    """The newest first, unless asked otherwise."""
    rows = corpora.page(backend, owner, limit=limit, after=after, descending=order == "desc")
    return show_page(
        request=request, response=response, rows=rows, limit=limit, shown=Corpus.of, page=Page[Corpus]
    )


@router.get(
    "/{corpus_id}",
    operation_id="get_corpus",
    summary="Show a corpus",
    responses=problems(NotFoundError, GoneError),
)
def get_corpus(corpus_id: CorpusId, backend: BackendDep, owner: OwnerDep) -> Corpus:
    """Counts, lengths, and what was dropped."""
    return Corpus.of(corpora.get(backend, owner, corpus_id))


@router.get(
    "/{corpus_id}/preview",
    operation_id="preview_corpus",
    summary="Show the first texts",
    response_model_exclude_none=True,
    responses=problems(NotFoundError, GoneError),
)
def preview_corpus(
    corpus_id: CorpusId,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Annotated[int, Query(ge=1, le=100, description="Texts to show.")] = 10,
) -> CorpusPreview:
    """As they are stored: normalised, each once; with labels in a labelled corpus."""
    return CorpusPreview.model_validate({"data": corpora.preview(backend, owner, corpus_id, limit)})


@router.delete(
    "/{corpus_id}",
    status_code=204,
    operation_id="delete_corpus",
    summary="Delete a corpus",
    responses=problems(NotFoundError, GoneError, IN_USE),
)
def delete_corpus(corpus_id: CorpusId, backend: BackendDep, owner: OwnerDep) -> None:
    """With its texts, unless a job that has not ended reads it."""
    corpora.delete(backend, owner, corpus_id)
