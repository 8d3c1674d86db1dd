"""What a job found out: its report, the table of its texts, the curve of its training."""

import json
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from starlette.responses import StreamingResponse

from app.api.dependencies import BackendDep, OwnerDep
from app.api.examples import TEXT_ROW
from app.api.parameters import JobId
from app.api.problem_codes import REPORT_NOT_AVAILABLE, TEXTS_NOT_AVAILABLE
from app.api.problems import problems
from app.api.representations import NOT_MODIFIED, represent, represent_json
from app.api.schemas_findings import Metrics, Report, TextRow
from app.domain.errors import NotFoundError
from app.services import jobs, text_report
from app.services.text_report import Selection

router = APIRouter(prefix="/amalgamations", tags=["amalgamations"])


class TextFormat(StrEnum):
    """How the table is written."""

    JSONL = "jsonl"
    PARQUET = "parquet"


MEDIA_TYPES = {
    TextFormat.JSONL: "application/jsonl",
    TextFormat.PARQUET: "application/vnd.apache.parquet",
}
_LARGEST = 2**53 - 1
_TEXTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A row a text, in the order of the corpus.",
        "content": {
            MEDIA_TYPES[TextFormat.JSONL]: {
                "schema": TextRow.model_json_schema(),
                "examples": {"line": {"summary": "One line", "value": TEXT_ROW}},
            },
            MEDIA_TYPES[TextFormat.PARQUET]: {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get(
    "/{job_id}/report",
    operation_id="get_amalgamation_report",
    summary="What a job found out",
    response_model=Report,
    responses=problems(NotFoundError, REPORT_NOT_AVAILABLE) | NOT_MODIFIED,
)
def get_amalgamation_report(
    request: Request, job_id: JobId, backend: BackendDep, owner: OwnerDep
) -> Response:
    """Scores, choices of teacher, figures of everyone: there when the job has succeeded."""
    report = jobs.report(backend, owner, job_id)  # not validated: that of an older version must be shown too
    return represent_json(request, json.dumps(report, ensure_ascii=False).encode())


@router.get(
    "/{job_id}/metrics",
    operation_id="get_amalgamation_metrics",
    summary="The curve of a job's training",
    response_model=Metrics,
    responses=problems(NotFoundError) | NOT_MODIFIED,
)
def get_amalgamation_metrics(
    request: Request, job_id: JobId, backend: BackendDep, owner: OwnerDep
) -> Response:
    """As far as it has come; empty before the training begins, and where the method trains no student.

    Steps that were repeated are there once.
    """
    return represent(request, Metrics.of(jobs.training_curve(backend, owner, job_id)))


@router.get(
    "/{job_id}/texts",
    operation_id="get_amalgamation_texts",
    summary="Every text of the corpus: whom the teachers' certainty chose, and the student's answer",
    response_class=Response,
    responses=_TEXTS | problems(NotFoundError, TEXTS_NOT_AVAILABLE),
)
def get_amalgamation_texts(
    *,
    request: Request,
    job_id: JobId,
    backend: BackendDep,
    owner: OwnerDep,
    orphans: Annotated[bool, Query(description="Only texts of which no teacher is sure.")] = False,
    after: Annotated[int, Query(ge=-1, le=_LARGEST, description="Only rows with a higher number.")] = -1,
    limit: Annotated[int | None, Query(ge=1, le=_LARGEST, description="Rows; by default all.")] = None,
    format: Annotated[  # noqa: A002  (the parameter's name in the URL)
        TextFormat | None, Query(description="Wins over `Accept`; `jsonl` when neither asks for Parquet.")
    ] = None,
) -> Response:
    """Streamed, as JSON Lines or Parquet; go on with `after` = the last `row` that you have.

    Where the method trains no student (`ensemble`), the answer is that of the teachers together.

    `?orphans=true` lists the texts that fit no teacher: when they are alike, a label is missing.
    """
    report = text_report.find(backend, owner, job_id)
    batches = report.batches(Selection(after, limit, orphans))
    chosen = format or _accepted(request)
    if chosen is TextFormat.PARQUET:
        body = text_report.as_parquet(report.schema(), batches)
    else:
        body = text_report.as_json_lines(batches)
    headers = {
        "Content-Disposition": f'attachment; filename="{job_id}-texts.{chosen}"',
        "Vary": "Accept",
        "X-Content-Type-Options": "nosniff",
    }
    return StreamingResponse(body, headers=headers, media_type=MEDIA_TYPES[chosen])


def _accepted(request: Request) -> TextFormat:
    asked = request.headers.get("accept", "").lower()
    return TextFormat.PARQUET if MEDIA_TYPES[TextFormat.PARQUET] in asked else TextFormat.JSONL
