"""A local server that speaks the Hugging Face Hub's protocol: real HTTP for `huggingface_hub` to talk to.

    with hub_server() as hub:
        hub.add("acme/intents", folder)         # commits the folder's files
        ...                                     # HF_ENDPOINT=hub.url

Large files (`.safetensors`, `.bin`) are told as LFS files with their sha256, as the Hub does.
"""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

_LFS = (".safetensors", ".bin")
_INFO = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>.+?)(?:/revision/(?P<rev>[^/]+))?")
_TREE = re.compile(r"/api/(?P<kind>models|datasets)/(?P<repo>.+?)/tree/(?P<rev>[^/]+)(?:/(?P<sub>.*))?")
_RESOLVE = re.compile(r"/(?P<kind>datasets/)?(?P<repo>.+?)/resolve/(?P<rev>[^/]+)/(?P<path>.+)")


@dataclass
class Repository:
    """One repository: commits, and names for them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    """Its facts are public, its files need a token, as on the Hub."""

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self.refs.get(revision, revision)
        return (commit, self.commits[commit]) if commit in self.commits else None


class Hub:
    """What tests put on the server, and what it was asked."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[str] = []
        """Method, path and query of every request."""
        self.authorizations: set[str] = set()
        self.status: int | None = None
        """Answer every request with this, when set: a Hub in trouble."""
        self.stalled = threading.Event()
        """Answer nothing until it is set again; starts set."""
        self.stalled.set()

    def add(
        self,
        name: str,
        files: Path | dict[str, bytes],
        *,
        kind: str = "models",
        ref: str = "main",
        gated: bool = False,
    ) -> str:
        """Commit a folder or files; returns the commit."""
        if isinstance(files, Path):
            root = files
            paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
            files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
        listing = [(path, hashlib.sha256(content).hexdigest()) for path, content in sorted(files.items())]
        commit = hashlib.sha1(json.dumps([name, listing]).encode()).hexdigest()
        repository = self.repositories.setdefault((kind, name), Repository())
        repository.commits[commit] = files
        repository.refs[ref] = commit
        repository.gated = gated
        return commit


@contextmanager
def hub_server() -> Iterator[Hub]:
    """Serve until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.stalled.set()
        server.shutdown()
        server.server_close()
        thread.join()


def take_for_the_hub(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on this process' `huggingface_hub` asks this server, and keeps what it hears to the test."""
    from huggingface_hub import constants  # noqa: PLC0415

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""

    @property
    def hub(self) -> Hub:
        hub: Hub = self.server.hub  # type: ignore[attr-defined]
        return hub

    def _answer(self) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if authorization := self.headers.get("Authorization"):
            self.hub.authorizations.add(authorization)
        self.hub.stalled.wait(60)
        if self.hub.status is not None:
            self._send(self.hub.status, b"the Hub is in trouble")
            return
        path = urlsplit(self.path).path
        routes = ((_TREE, self._tree), (_INFO, self._info), (_RESOLVE, self._resolve))
        for pattern, handler in routes:
            if match := pattern.fullmatch(path):
                # Unquoted afterwards: the revision refs/convert/parquet comes as refs%2Fconvert%2Fparquet.
                handler(**{name: value and unquote(value) for name, value in match.groupdict().items()})
                return
        self._send(404, b"", {"X-Error-Code": "RepoNotFound"})

    def _find(
        self, kind: str | None, repo: str, rev: str | None
    ) -> tuple[Repository, str, dict[str, bytes]] | None:
        repository = self.hub.repositories.get(((kind or "models").strip("/"), repo))
        if repository is None:
            # The Hub tells those who may not look the same as those who look for nothing.
            self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            return None
        found = repository.files(rev or "main")
        if found is None:
            self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, *found

    def _info(self, kind: str, repo: str, rev: str | None) -> None:
        if found := self._find(kind, repo, rev):
            repository, commit, files = found
            blobs = "blobs" in parse_qs(urlsplit(self.path).query)
            siblings = [_sibling(path, content, blobs=blobs) for path, content in files.items()]
            self._send_json(
                {"id": repo, "sha": commit, "siblings": siblings, "gated": repository.gated, "private": False}
            )

    def _tree(self, kind: str, repo: str, rev: str, sub: str | None) -> None:
        if found := self._find(kind, repo, rev):
            inside = {p: c for p, c in found[2].items() if not sub or p.startswith(f"{sub}/")}
            entries = [
                {
                    "type": "file",
                    "path": path,
                    "size": len(content),
                    "oid": _git_oid(content),
                    **_lfs(path, content),
                }
                for path, content in inside.items()
            ]
            self._send_json(entries)

    def _resolve(self, kind: str | None, repo: str, rev: str, path: str) -> None:
        found = self._find(kind, repo, rev)
        if found is None:
            return
        repository, commit, files = found
        if repository.gated and not self.headers.get("Authorization"):
            self._send(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "accept the conditions"})
        elif path not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
        else:
            self._send_file(path, files[path], commit)

    def _send_file(self, path: str, content: bytes, commit: str) -> None:
        lfs = path.endswith(_LFS)
        oid = hashlib.sha256(content).hexdigest() if lfs else _git_oid(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{oid}"', "Accept-Ranges": "bytes"}
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if match is None:
            self._send(200, content, headers)
            return
        start, stop = int(match[1]), min(int(match[2] or len(content)) + 1, len(content))
        if start >= len(content):
            self._send(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
        self._send(206, content[start:stop], headers)

    def _send_json(self, content: Any) -> None:
        self._send(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _sibling(path: str, content: bytes, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": path}
    return {"rfilename": path, "size": len(content), "blobId": _git_oid(content), **_lfs(path, content)}


def _lfs(path: str, content: bytes) -> dict[str, Any]:
    if not path.endswith(_LFS):
        return {}
    sha256 = hashlib.sha256(content).hexdigest()
    return {"lfs": {"sha256": sha256, "oid": sha256, "size": len(content), "pointerSize": 134}}


def _git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
