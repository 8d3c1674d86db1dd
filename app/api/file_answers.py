"""Files over HTTP: `ETag`, `Range`, `If-Range`, `HEAD`, `Repr-Digest`; streamed, never gzipped."""

import base64
import re
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from app.api.file_stream import FileStream
from app.api.ranges import parse_range
from app.api.representations import NOT_MODIFIED, is_known
from app.api.response_headers import FILE, LINKED, PART_OF_FILE
from app.services.downloads import Download
from app.storage import ArtifactStore

ARCHIVE = "application/x-tar"
BINARY = "application/octet-stream"
_MEDIA_TYPES = {
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".tar": ARCHIVE,
    ".txt": "text/plain; charset=utf-8",
}


def file_responses(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """`responses=` of a route that answers with files of these types; by default of all that there are."""
    types = media_types or (BINARY, *(each.partition(";")[0] for each in _MEDIA_TYPES.values()))
    binary: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    content = {each: {"schema": {}} if each == "application/json" else binary for each in types}
    return {
        200: {"description": "The whole file.", "content": content, "headers": FILE},
        206: {"description": "The range asked for.", "content": content, "headers": PART_OF_FILE},
        **NOT_MODIFIED,
    }


REDIRECTED: dict[int | str, dict[str, Any]] = {
    302: {
        "description": "The service keeps its files in a bucket: this one, or the range of it, is at "
        "`Location` for a few minutes, and no key is needed there.",
        "headers": LINKED,
    }
}
"""`responses=` of a route that answers with single files, in addition."""


HEADERS_OF_FILE: dict[int | str, dict[str, Any]] = {
    200: {"description": "The headers that GET answers with.", "headers": FILE},
    **NOT_MODIFIED,
}
"""`responses=` of a route that answers with the headers alone."""


def answer_file(request: Request, download: Download, store: ArtifactStore) -> Response:
    """The file, a range of it, where it is, 304, or only the headers for `HEAD`.

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
    if (url := download.url(store)) is not None:
        return _redirect(url, etag, size)
    if wanted is None:
        return FileStream(download.read(store, 0, size), headers=headers | {"Content-Length": str(size)})
    headers |= {
        "Content-Length": str(wanted.stop - wanted.start),
        "Content-Range": f"bytes {wanted.start}-{wanted.stop - 1}/{size}",
    }
    return FileStream(download.read(store, wanted.start, wanted.stop), 206, headers=headers)


def _redirect(url: str, etag: str, size: int) -> Response:
    """What the headers of the other answer do not tell: clients of the Hub want to know it in advance."""
    headers = {"ETag": etag, "X-Linked-Etag": etag, "X-Linked-Size": str(size), "Cache-Control": "no-store"}
    return RedirectResponse(url, 302, headers)


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
