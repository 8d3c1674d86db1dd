"""Asking a student about texts, while the caller waits."""

from typing import Any

from fastapi import APIRouter, Response

from app.api.dependencies import OwnerDep, PredictionsDep
from app.api.problems import problems
from app.api.routes.students import StudentId
from app.api.schemas_predictions import PredictionRequest, Predictions
from app.api.scopes import FOR_READERS
from app.domain.errors import (
    InvalidRequestError,
    NotFoundError,
    NotReadyError,
    PredictionFailedError,
    PredictionsBusyError,
    PredictionTimeoutError,
)

router = APIRouter(prefix="/students", tags=["students"])

_ANSWERED: dict[int | str, dict[str, Any]] = {200: {"model": Predictions}}
_PROBLEMS = problems(
    NotFoundError,
    InvalidRequestError,
    PredictionsBusyError,
    PredictionFailedError,
    NotReadyError,
    PredictionTimeoutError,
)


@router.post(
    "/{student_id}/predictions",
    operation_id="predict",
    summary="Classify texts",
    response_class=Response,
    responses=_ANSWERED | _PROBLEMS,
    openapi_extra=FOR_READERS,
)
async def predict(
    student_id: StudentId,
    body: PredictionRequest,
    predictions: PredictionsDep,
    owner: OwnerDep,
) -> Response:
    """As `pipeline("text-classification", top_k=…, truncation=True)` does with the student's files.

    A prediction worker answers while you wait; the first answer of a student takes longer, for it is loaded.
    """
    # The worker writes the body itself: nothing is read and written again for each of many labels.
    content = await predictions.ask(owner, student_id, body.texts, body.top_k)
    return Response(content, media_type="application/json")
