"""RFC 9457 problems: the one form of every error, on the wire and in the OpenAPI document."""

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import Response
from starlette.types import Scope

from app.api.problem_codes import ProblemCode
from app.api.response_headers import RETRY_IN_FLIGHT
from app.domain.errors import Fault, MukaError, RequestInFlightError

MEDIA_TYPE = "application/problem+json"
MAX_FAULTS = 1000
"""A body of 4 MB can hold more mistakes than anybody reads; `detail` has their number."""
HUB_PATH = "/hub/"
_HUB_CODES = {
    "repo_not_found": "RepoNotFound",
    "revision_not_found": "RevisionNotFound",
    "entry_not_found": "EntryNotFound",
}
_HUB_MESSAGES = {"unauthorized": "Invalid credentials in Authorization header"}
"""By this very message clients tell a wrong key from a model that is not there."""
SCHEMA_REF = "#/components/schemas/Problem"


class ProblemFault(BaseModel):
    """One thing that is wrong with the request."""

    pointer: str = Field(
        description="JSON pointer into the body (`/teachers/0/model`), a parameter, or a line of a file."
    )
    code: str
    detail: str = Field(description="What is wrong, and what to do about it.")


class Problem(BaseModel):
    """An error, as RFC 9457 writes it."""

    type: str = Field(description="`urn:muka:problem:` and the code.")
    title: str
    status: int
    detail: str
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable name of the problem, for programs.")
    request_id: str = Field(description="Also the header `X-Request-Id`, and in the service's log.")
    errors: list[ProblemFault] = Field(description="Every fault of the request, all at once.")


def problem_response(
    scope: Scope,
    *,
    status: int,
    code: str,
    detail: str,
    title: str | None = None,
    faults: Sequence[Fault] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Render one. ASCII only, so that no text that a client sent can break the answer."""
    if scope.get("path", "").startswith(HUB_PATH):
        return _in_the_hubs_form(status, code, detail, dict(headers or {}))
    problem = Problem(
        type=f"urn:muka:problem:{code}",
        title=title or HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=scope.get("path", ""),
        code=code,
        request_id=request_id(scope),
        errors=[ProblemFault(pointer=f.pointer, code=f.code, detail=f.detail) for f in faults[:MAX_FAULTS]],
    )
    content = json.dumps(problem.model_dump(mode="python"))
    return Response(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _in_the_hubs_form(status: int, code: str, detail: str, headers: dict[str, str]) -> Response:
    """As `huggingface_hub` reads errors: the kind and the message are headers."""
    message = _HUB_MESSAGES.get(code, detail).replace("…", "...").replace("\n", " ")
    message = message.encode("ascii", "replace").decode()
    headers["X-Error-Message"] = message
    if code in _HUB_CODES:
        headers["X-Error-Code"] = _HUB_CODES[code]
    return Response(json.dumps({"error": message}), status, headers=headers, media_type="application/json")


def request_id(scope: Scope) -> str:
    """The id that the middleware gave to this request."""
    return str(scope.get("state", {}).get("request_id", "unknown"))


def problems(*declared: type[MukaError] | ProblemCode) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route: one entry a status, one example a code."""
    responses: dict[int | str, dict[str, Any]] = {}
    for each in declared:
        error, code, meaning = _told(each)
        entry = responses.setdefault(
            error.status,
            {
                "description": error.title,
                "content": {MEDIA_TYPE: {"schema": {"$ref": SCHEMA_REF}, "examples": {}}},
            },
        )
        if error is RequestInFlightError:
            entry["headers"] = RETRY_IN_FLIGHT
        entry["content"][MEDIA_TYPE]["examples"][code] = {"value": _example(error, code, meaning)}
    return responses


def _told(declared: type[MukaError] | ProblemCode) -> tuple[type[MukaError], str, str]:
    if isinstance(declared, ProblemCode):
        return declared.error, declared.code, declared.meaning
    return declared, declared.code, (declared.__doc__ or declared.title).strip().splitlines()[0]


def _example(error: type[MukaError], code: str, meaning: str) -> dict[str, Any]:
    return {
        "type": f"urn:muka:problem:{code}",
        "title": error.title,
        "status": error.status,
        "detail": meaning,
        "instance": "/amalgamations",
        "code": code,
        "request_id": "req-01990b6d2f4c7aa0b1c2d3e4f5a6b7c8",
        "errors": [],
    }
