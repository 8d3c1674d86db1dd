"""Answers with validators: an `ETag` over the bytes, and 304 where the client has them already."""

import hashlib
from collections.abc import Mapping
from typing import Any

from fastapi import Request
from pydantic import BaseModel
from starlette.responses import Response

from app.api.response_headers import ETAG

NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "As `If-None-Match` says, the client has it already.", "headers": ETAG}
}


def etag_of(content: bytes) -> str:
    """A strong validator."""
    return f'"{hashlib.sha256(content).hexdigest()}"'


def is_known(request: Request, etag: str) -> bool:
    """True when `If-None-Match` names this representation (weak comparison, RFC 9110 13.1.2)."""
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return "*" in known or etag in known


def represent(request: Request, thing: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """The object as JSON with its `ETag`, or 304."""
    return represent_json(request, thing.model_dump_json().encode(), headers)


def represent_json(request: Request, content: bytes, headers: Mapping[str, str] | None = None) -> Response:
    """JSON that is written already, with its `ETag`, or 304."""
    etag = etag_of(content)
    validators = {"ETag": etag, "Cache-Control": "no-cache", **(headers or {})}
    if is_known(request, etag):
        return Response(status_code=304, headers=validators)
    return Response(content, media_type="application/json", headers=validators)
