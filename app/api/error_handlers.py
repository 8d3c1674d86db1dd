"""Errors as RFC 9457 problems (`application/problem+json`), for ours, FastAPI's and Starlette's alike."""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException as StarletteError  # noqa: TID251  (rendered, never raised)
from starlette.responses import Response
from starlette.routing import Match

from app.api.pointers import faults_of
from app.api.problems import problem_response, request_id
from app.domain.errors import (
    ForbiddenError,
    InvalidRequestError,
    MukaError,
    NotReadyError,
    PayloadTooLargeError,
    RangeNotSatisfiableError,
    RequestInFlightError,
    TooManyRequestsError,
    TooSlowError,
)
from app.storage import StoreError

_log = logging.getLogger(__name__)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
RETRY_LATER = {"Retry-After": "5"}
IN_A_MOMENT = {"Retry-After": "1"}
NOT_READ = {"Connection": "close"}
"""The rest of the body stays where it is."""

_HEADERS: Mapping[type[MukaError], dict[str, str]] = {
    PayloadTooLargeError: NOT_READ,
    RequestInFlightError: IN_A_MOMENT,
    TooManyRequestsError: RETRY_LATER | NOT_READ,
    TooSlowError: NOT_READ,
}


def install_error_handlers(app: FastAPI) -> None:
    """Render every error that can leave a route as a problem."""
    handlers: dict[type[Exception], Any] = {
        MukaError: _ours,
        RequestValidationError: _validation,
        StarletteError: _starlette,
        StoreError: _store,
        OperationalError: _database,
        InterfaceError: _database,
        PoolTimeoutError: _database,
    }
    for error, handler in handlers.items():
        app.add_exception_handler(error, handler)


def _ours(request: Request, error: MukaError) -> Response:
    return problem_response(
        request.scope,
        status=error.status,
        code=error.problem_code,
        title=error.title,
        detail=error.detail,
        faults=error.faults,
        headers=_headers(error),
    )


def _headers(error: MukaError) -> dict[str, str]:
    if error.status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, RangeNotSatisfiableError):
        return {"Content-Range": f"bytes */{error.size_bytes}"}
    if isinstance(error, ForbiddenError):
        return {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{error.scope}"'}
    for kind, headers in _HEADERS.items():
        if isinstance(error, kind):
            return headers
    return RETRY_LATER if error.status in (502, 503, 504) else {}


def _validation(request: Request, error: RequestValidationError) -> Response:
    faults = faults_of(error.errors())
    detail = "the request has one fault" if len(faults) == 1 else f"the request has {len(faults)} faults"
    return _ours(request, InvalidRequestError(f"{detail}; see `errors`", faults=faults))


def _starlette(request: Request, error: StarletteError) -> Response:
    cause = error.__cause__
    if isinstance(cause, MukaError):  # raised while FastAPI read the body
        return _ours(request, cause)
    status = HTTPStatus(error.status_code)
    return problem_response(
        request.scope,
        status=status,
        code=status.name.lower(),
        detail=_DETAILS.get(status, str(error.detail)),
        headers={"Allow": _allowed(request)} if status == HTTPStatus.METHOD_NOT_ALLOWED else error.headers,
    )


def _allowed(request: Request) -> str:
    """All methods of the address; the framework names those of the first route only."""
    # `/amalgamations/plan` looks like the address of a job, too, but is one of its own.
    if literal := request.app.openapi()["paths"].get(request.scope["path"]):
        return ", ".join(method.upper() for method in literal)
    routes = request.app.router.routes
    scopes = [{**request.scope, "method": method} for method in METHODS]
    return ", ".join(
        str(scope["method"])
        for scope in scopes
        if any(route.matches(scope)[0] == Match.FULL for route in routes)
    )


_DETAILS = {
    HTTPStatus.BAD_REQUEST: "the body cannot be read: send JSON in UTF-8, as `application/json`",
    HTTPStatus.NOT_FOUND: "there is nothing at this address; /docs lists the routes",
    HTTPStatus.METHOD_NOT_ALLOWED: "this address does not take that method; the header `Allow` lists those",
}


def _store(request: Request, error: StoreError) -> Response:
    _log.error("%s: the artifact store failed", request_id(request.scope), exc_info=error)
    detail = "the artifact store cannot be read or written at the moment; try again later"
    return _ours(request, NotReadyError(detail, code="storage_error"))


def _database(request: Request, error: Exception) -> Response:
    _log.error("%s: the database failed", request_id(request.scope), exc_info=error)
    detail = "the database does not answer at the moment; try again later"
    return _ours(request, NotReadyError(detail, code="database_unavailable"))
