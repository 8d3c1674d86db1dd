"""The OpenAPI document: what FastAPI derives, and the problems that every operation can answer with."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.api.examples import SCHEMA_EXAMPLES
from app.api.examples_webhooks import WEBHOOK_EXAMPLES
from app.api.links import add_links
from app.api.problem_codes import DATABASE_UNAVAILABLE, STORAGE_ERROR, ProblemCode
from app.api.problems import MEDIA_TYPE, Problem, problems
from app.api.response_headers import ETAG, IF_NONE_MATCH, IF_RANGE, RANGE, REQUEST_ID, of_problem
from app.api.scopes import take_told
from app.api.webhook_messages import messages
from app.domain.errors import (
    ForbiddenError,
    HostNotAllowedError,
    InvalidRequestError,
    MukaError,
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


_BEHIND_THE_DOOR = (
    DATABASE_UNAVAILABLE,
    STORAGE_ERROR,
    UnauthorizedError,
    ForbiddenError,
    HostNotAllowedError,
)


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
    _leave_out_object_defaults(schemas)
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for path in document["paths"].values():
        for method in _METHODS & path.keys():
            _complete(path[method], method)
    add_links(document["paths"])
    return document


def _complete(operation: dict[str, Any], method: str) -> None:
    responses = operation["responses"]
    if MEDIA_TYPE not in responses.get("422", {}).get("content", {}):
        responses.pop("422", None)  # the framework's own
    common: list[type[MukaError] | ProblemCode] = [_InternalError]
    scope = take_told(operation, method)
    if "security" in operation:
        operation["security"] = [{name: [scope.value] for name in each} for each in operation["security"]]
        common += _BEHIND_THE_DOOR
    if "requestBody" in operation or any(map(_can_be_refused, operation.get("parameters", ()))):
        common.append(InvalidRequestError)
    if "requestBody" in operation:
        common += [_BadRequestError, PayloadTooLargeError]
    for status, entry in problems(*common).items():
        own = responses.get(str(status), {}).get("content", {}).get(MEDIA_TYPE, {})
        entry["content"][MEDIA_TYPE]["examples"] |= own.get("examples", {})
        responses[str(status)] = entry
    if "304" in responses:
        responses["200"]["headers"] = ETAG | responses["200"].get("headers", {})
        operation.setdefault("parameters", []).append(IF_NONE_MATCH)
    if "206" in responses:
        operation["parameters"] += [RANGE, IF_RANGE]
    for status, response in responses.items():
        response["headers"] = REQUEST_ID | of_problem(status) | response.get("headers", {})
    for parameter in operation.get("parameters", ()):
        _never_null(parameter)
    operation["responses"] = dict(sorted(responses.items()))


def _can_be_refused(parameter: dict[str, Any]) -> bool:
    """False where every text will do: a name in a path leads somewhere or to 404."""
    schema = parameter["schema"]
    return {name: schema[name] for name in schema.keys() - {"title", "description"}} != {"type": "string"}


def _leave_out_object_defaults(schemas: dict[str, Any]) -> None:
    """Their fields have defaults of their own, and client generators give up on objects as defaults."""
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            if isinstance(member.get("default"), dict):
                del member["default"]


def _never_null(parameter: dict[str, Any]) -> None:
    """A parameter is left out or has a value: nothing in a URL or a header is null."""
    schema = parameter["schema"]
    kinds = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(kinds) == 1:
        del schema["anyOf"]
        parameter["schema"] = kinds[0] | schema
