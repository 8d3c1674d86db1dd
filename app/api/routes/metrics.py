"""Figures of the service, for Prometheus."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from app.api.dependencies import CallerDep
from app.api.scopes import FOR_ADMINS
from app.services.metrics import MEDIA_TYPE, Metrics

router = APIRouter(tags=["health"])

_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Prometheus' text format.",
        "content": {
            "text/plain": {
                "schema": {"type": "string"},
                "examples": {"jobs": {"value": 'muka_jobs{status="queued"} 2.0\n'}},
            }
        },
    }
}


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses=_TEXT,
    openapi_extra=FOR_ADMINS,
)
def get_metrics(request: Request, caller: CallerDep) -> Response:  # noqa: ARG001  (for admins of the service)
    """Jobs, stored outputs and webhooks are counted over all owners, the same in every process.

    Requests, listeners and the process itself are those of the process that answers.
    """
    metrics: Metrics = request.app.state.metrics
    return Response(metrics.text(), media_type=MEDIA_TYPE)
