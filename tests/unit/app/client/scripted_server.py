"""A real HTTP server that does to a client what networks and busy services do."""

import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    """Bytes of the body after which the connection is dropped."""

    @classmethod
    def of(cls, content: Any, status: int = 200, **headers: str) -> "Reply":
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(status, json.dumps(content).encode(), {"Content-Type": "application/json"} | named)


DROP = Reply(cut_after=-1)
"""The connection is dropped before a byte of an answer."""

Script = Callable[[Request], Reply]


@dataclass
class ScriptedServer:
    url: str = ""
    requests: list[Request] = field(default_factory=list)
    scripts: list[tuple[str, re.Pattern[str], Script]] = field(default_factory=list)

    def on(self, method: str, path: str, *replies: Reply | Script) -> None:
        """Answer with one reply after the other; the last one again and again."""
        left = list(replies)

        def script(request: Request) -> Reply:
            reply = left.pop(0) if len(left) > 1 else left[0]
            return reply if isinstance(reply, Reply) else reply(request)

        self.scripts.insert(0, (method, re.compile(path), script))

    def seen(self, method: str, path: str) -> list[Request]:
        return [r for r in self.requests if r.method == method and re.fullmatch(path, r.path)]

    def answer(self, request: Request) -> Reply:
        self.requests.append(request)
        for method, pattern, script in self.scripts:
            if method == request.method and pattern.fullmatch(request.path):
                return script(request)
        return Reply.of({"title": "Not found", "detail": f"no {request.path}", "code": "not_found"}, 404)


@contextmanager
def running(
    host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> Iterator[ScriptedServer]:
    scripted = ScriptedServer()
    server = ThreadingHTTPServer((host, port), _handler_of(scripted))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scripted.url = f"{'https' if tls else 'http'}://{host}:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield scripted
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler_of(scripted: ScriptedServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            reply = scripted.answer(Request(self.command, path, query, dict(self.headers), body))
            if reply.cut_after == -1:
                self.close_connection = True
                return
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in reply.headers:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body[: reply.cut_after])
            self.close_connection = self.close_connection or reply.cut_after is not None

        do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  (names that the base class calls)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


def event_stream(*events: Mapping[str, Any], cut_after: int | None = None) -> Reply:
    """Server-sent events as muka sends them; `cut_after` bytes the connection drops."""
    blocks = [
        f"id: {event['sequence']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events
    ]
    body = "".join(["retry: 2000\n\n", *blocks]).encode()
    return Reply(200, body, {"Content-Type": "text/event-stream; charset=utf-8"}, cut_after)


def with_ranges(content: bytes, etag: str, cut_after: int | None = None) -> Script:
    """A file as muka serves it: `Range` with `If-Range`; `cut_after` bytes the connection drops."""

    def script(request: Request) -> Reply:
        start = 0
        wanted = request.headers.get("Range")
        if wanted and request.headers.get("If-Range") in {None, etag}:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        headers = {"ETag": etag, "Accept-Ranges": "bytes"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return Reply(206 if start else 200, content[start:], headers, cut_after)

    return script
