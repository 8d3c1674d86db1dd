"""Files over HTTP: `ETag`, `Range`, `If-Range`, `HEAD`, `Repr-Digest`; streamed, never gzipped."""

import base64
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import Response, StreamingResponse

from app.api.ranges import parse_range
from app.api.representations import NOT_MODIFIED, is_known
from app.services.downloads import Download
from app.storage import ArtifactStore

_MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".tar": "application/x-tar",
    ".txt": "text/plain; charset=utf-8",
}
BINARY = "application/octet-stream"

FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The whole file.",
        "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
    },
    206: {
        "description": "The range that was asked for.",
        "content": {BINARY: {"schema": {"type": "string", "format": "binary"}}},
    },
    **NOT_MODIFIED,
}


def answer_file(request: Request, download: Download, store: ArtifactStore) -> Response:
    """The file, a range of it, 304, or only the headers for `HEAD`.

    Raises:
        RangeNotSatisfiableError: a range behind the end.
    """
    etag, size = f'"{download.digest}"', download.size_bytes
    headers = _headers(download, etag)
    if is_known(request, etag):
        return Response(status_code=304, headers=headers)
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(size)})
    wanted = None
    if request.headers.get("if-range", etag) == etag:
        wanted = parse_range(request.headers.get("range"), size)
    if wanted is None:
        body = download.read(store, 0, size)
        return StreamingResponse(body, headers=headers | {"Content-Length": str(size)})
    headers |= {
        "Content-Length": str(wanted.stop - wanted.start),
        "Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}",
    }
    return StreamingResponse(download.read(store, wanted.start, wanted.stop), 206, headers=headers)


def _headers(download: Download, etag: str) -> dict[str, str]:
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-cache",
        "Content-Type": _MEDIA_TYPES.get(PurePosixPath(download.filename).suffix, BINARY),
        "Content-Disposition": _disposition(download.filename),
        "X-Content-Type-Options": "nosniff",
    }
    if download.sha256 is not None:
        digest = base64.b64encode(bytes.fromhex(download.sha256)).decode()
        headers["Repr-Digest"] = f"sha-256=:{digest}:"
    return headers


def _disposition(filename: str) -> str:
    """The name twice, as RFC 6266 advises: clients such as curl read the plain form only."""
    plain = re.sub(r"[^\w. -]", "_", filename, flags=re.ASCII)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename)}"
