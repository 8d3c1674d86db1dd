"""Around every request: its id, the limit of its body, and an answer when all else fails. Pure ASGI."""

import logging
import re
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.domain.errors import PayloadTooLargeError
from app.domain.identifiers import Prefix, new_id

_log = logging.getLogger(__name__)
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")


class RequestContext:
    """Gives the request an id, and turns an unexpected error into a 500 that names it and nothing else."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        identifier = given if _GIVEN_ID.fullmatch(given) else new_id(Prefix.REQUEST)
        scope.setdefault("state", {})["request_id"] = identifier
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-Id"] = identifier
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except Exception:
            if started:  # the server must break the connection, or half an answer would look whole
                raise
            _log.exception("%s: unexpected error at %s %s", identifier, scope["method"], scope["path"])
            detail = "muka failed unexpectedly; the service's log has the details under this request_id"
            response = problem_response(scope, status=500, code="internal", detail=detail)
            await response(scope, receive, send_with_id)


class BodyLimit:
    """Refuses bodies over a limit while they stream in.

    `own_limits` names the routes that bring their own: uploads.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int, own_limits: Mapping[str, str]) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.own_limits = own_limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self.own_limits.get(scope["path"]) == scope["method"]:
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        too_large = declared.isdecimal() and (len(declared) > 18 or int(declared) > self.max_bytes)
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if too_large or received > self.max_bytes:
                raise PayloadTooLargeError(
                    f"the body has more than {self.max_bytes:,} bytes, the limit of this request; "
                    "upload texts with POST /corpora and models with POST /models"
                )
            return message

        await self.app(scope, limited, send)
