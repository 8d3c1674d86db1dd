"""The OpenAPI document: what FastAPI derives, and the problems that every operation can answer with."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.examples import SCHEMA_EXAMPLES
from app.api.examples_webhooks import WEBHOOK_EXAMPLES
from app.api.problems import Problem, problems
from app.api.scopes import take_told
from app.api.webhook_messages import messages
from app.domain.errors import (
    ForbiddenError,
    InvalidRequestError,
    MukaError,
    NotReadyError,
    PayloadTooLargeError,
    UnauthorizedError,
)

_SUMMARY = "Many fine-tuned text classifiers in, one student out, without labelled data."
_METHODS = frozenset({"get", "head", "post", "put", "patch", "delete"})


class _BadRequestError(InvalidRequestError):
    """The body cannot be read: it is not JSON in UTF-8."""

    status = 400
    code = "bad_request"
    title = "Bad Request"


class _InternalError(MukaError):
    """muka failed unexpectedly; the log has the details under the request_id."""

    title = "Internal Server Error"


def describe(app: FastAPI) -> None:
    """Make `/openapi.json` complete; built at the first request for it."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=_SUMMARY,
        routes=app.routes,
        webhooks=messages.routes,
        separate_input_output_schemas=app.separate_input_output_schemas,
    )
    schema = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas |= schema.pop("$defs") | {"Problem": schema}
    # Added here, for FastAPI would leave out the nulls that are part of an example.
    for name, shown in (SCHEMA_EXAMPLES | WEBHOOK_EXAMPLES).items():
        schemas[name]["examples"] = shown
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for method in _METHODS & path.keys():
            _complete(path[method], method)
    return document


def _complete(operation: dict[str, Any], method: str) -> None:
    responses = operation["responses"]
    common: list[type[MukaError]] = [NotReadyError, _InternalError]
    scope = take_told(operation, method)
    if "security" in operation:
        operation["security"] = [{name: [scope.value] for name in each} for each in operation["security"]]
        common += [UnauthorizedError, ForbiddenError]
    if operation.get("parameters") or "requestBody" in operation:
        common.append(InvalidRequestError)
    if "requestBody" in operation:
        common += [_BadRequestError, PayloadTooLargeError]
    for status, entry in problems(*common).items():
        if "application/problem+json" not in responses.get(str(status), {}).get("content", {}):
            responses[str(status)] = entry
    for response in responses.values():
        response.setdefault("headers", {})["X-Request-Id"] = {
            "description": "Names this request in the service's log.",
            "schema": {"type": "string"},
        }
    operation["responses"] = dict(sorted(responses.items()))
