"""Around every request: counts it and takes its time, for `GET /metrics`. Pure ASGI."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.services.telemetry import LATENCY, REQUESTS

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"
"""A method or address that nobody planned: clients invent as many as they like."""


class Measuring:
    """Measures when an answer begins; who leaves before that is not counted."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def measured(message: Message) -> None:
            if message["type"] == "http.response.start":
                method = scope["method"] if scope["method"] in METHODS else OTHER
                route = getattr(scope.get("route"), "path", OTHER)
                REQUESTS.labels(method, route, str(message["status"])).inc()
                LATENCY.labels(method, route).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, measured)
