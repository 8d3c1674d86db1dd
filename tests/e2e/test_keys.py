"""A service that others can reach: it starts with a key only, and a key appears only where it was sent."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from app.domain.access import Scope
from app.persistence import migrate
from app.persistence.database import Database
from app.services import keys
from tests.e2e.service import ROOT, Muka, muka
from tests.servers import wait_until

OF_THE_SETTING = "0f-the-setting-4711-0815"
TO_THE_NETWORK = ("serve", "--host", "0.0.0.0", "--port", "0", "--no-worker")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    url = f"sqlite:///{tmp_path / 'muka.db'}"
    migrate.upgrade(url)
    opened = Database(url)
    yield opened
    opened.close()


def test_revoked_keys_alone_do_not_let_it_start(database: Database, tmp_path: Path) -> None:
    row, _ = keys.create(database, "acme", [Scope.READ])
    keys.revoke(database, row.id)
    refused = subprocess.run(
        [sys.executable, "-m", "app.cli", *TO_THE_NETWORK],
        cwd=ROOT,
        env=os.environ | {"MUKA_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert "muka keys create --owner NAME" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_no_key_is_ever_written_down_or_sent_back(database: Database, tmp_path: Path) -> None:
    _, key = keys.create(database, "acme", [Scope.READ, Scope.WRITE])
    row, revoked = keys.create(database, "acme", [Scope.READ])
    keys.revoke(database, row.id)
    secrets = [key, revoked, OF_THE_SETTING, "wr0ng-and-never-made"]
    environment = {"MUKA_DATA_DIR": str(tmp_path), "MUKA_API_KEY": OF_THE_SETTING}
    with muka(TO_THE_NETWORK, tmp_path, environment) as service:
        answers = [answer for secret in secrets for answer in _every_way(service, secret)]
        assert {answer.status_code for answer in answers} >= {200, 401, 404, 422, 503}
        _send_nonsense(service, key)
    for answer in answers:
        told = f"{answer.headers} {answer.text}"
        assert not [secret for secret in secrets if secret in told], answer.request.url
    assert "storage" in service.output() or "store" in service.output(), "what went wrong is in the log"
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert not [secret for secret in secrets if secret.encode() in content], file.name


def _every_way(service: Muka, secret: str) -> Iterator[httpx.Response]:
    """A key in the header, where it belongs, and in the query, where people put it all the same."""
    with httpx.Client(base_url=_url(service), headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client.get("/amalgamations")
        yield client.get("/corpora", headers={"Authorization": f"Basic {secret}"})
        yield client.get("/corpora", headers={"Authorization": secret})
        yield client.get(f"/hub/api/models/students/stu-{'0' * 32}")
        yield client.post("/amalgamations", json={"teachers": []})
        yield client.post("/amalgamations", content=b"{", headers={"Content-Type": "application/json"})
        for name in ("api_key", "access_token", "limit"):
            yield client.get("/models", params={name: secret} if name != "limit" else {"limit": "x"})
            yield httpx.get(f"{_url(service)}/models", params={name: secret})
        yield _upload_to_a_store_that_fails(client, service)


def _upload_to_a_store_that_fails(client: httpx.Client, service: Muka) -> httpx.Response:
    """What fails unexpectedly is logged with its traceback."""
    store = service.log.parent / "store"
    shutil.rmtree(store, ignore_errors=True)
    store.write_text("no folder")
    answer = client.post("/corpora", params={"filename": "a.txt"}, content=b"one\ntwo\n")
    store.unlink()
    return answer


def _send_nonsense(service: Muka, key: str) -> None:
    """A request that the HTTP server itself refuses, and complains about."""
    parts = urlsplit(_url(service))
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), timeout=10) as connection:
        connection.sendall(f"GET / HTTP/9.9\r\nAuthorization: Bearer {key}\r\n\x00\r\n\r\n".encode())
        assert b"400" in connection.recv(100)
    wait_until(lambda: "Invalid HTTP request" in service.output(), "the server complains")


def _url(service: Muka) -> str:
    return service.url.replace("0.0.0.0", "127.0.0.1")
