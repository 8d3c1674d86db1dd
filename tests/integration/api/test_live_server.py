"""What only a real server process can show: memory, the environment, many waiting clients."""

import http.client
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from app.persistence.database import Database
from app.services.backend import Backend
from app.settings import Settings
from app.storage import open_store
from app.task_queue import TaskQueue
from tests.api_objects import add_corpus, add_model, add_student, model_files
from tests.hub_server import hub_server
from tests.jobs import add_job
from tests.live_service import api_process

BIG = 256 << 20


@pytest.fixture
def stock(sqlite_settings: Settings) -> Iterator[Backend]:
    """The database and store of the server."""
    database, queue = Database(sqlite_settings.resolved_database_url()), TaskQueue(sqlite_settings.broker_url)
    yield Backend(sqlite_settings, database, open_store(sqlite_settings.resolved_store_dir()), queue)
    database.close()
    queue.close()


def _peak_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def test_a_download_streams_with_flat_memory_and_goes_on_where_it_broke_off(
    sqlite_settings: Settings, stock: Backend
) -> None:
    student = add_student(stock, {"model.safetensors": b"x"})
    path = stock.store.local_path(f"students/{student}/attempt-1/model.safetensors")
    os.truncate(path, BIG)
    with stock.database.write() as session:
        from app.persistence.tables import Student  # noqa: PLC0415

        row = {"path": "model.safetensors", "size_bytes": BIG, "sha256": "0" * 64}
        session.get_one(Student, student).files = [row]
    with api_process(sqlite_settings) as (port, pid):
        before = _peak_bytes(pid)
        for part in ("files/model.safetensors", "download"):
            url = f"http://127.0.0.1:{port}/students/{student}/{part}"
            with httpx.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
                etag = answer.headers["etag"]
                assert "content-encoding" not in answer.headers
                total = int(answer.headers["content-length"])
                received = len(next(answer.iter_raw(1 << 20)))  # and the client breaks off
            headers = {"Range": f"bytes={received}-", "If-Range": etag}
            with httpx.stream("GET", url, headers=headers) as answer:
                assert answer.status_code == 206
                received += sum(map(len, answer.iter_raw(1 << 20)))
            assert received == total >= BIG
            assert httpx.head(url).headers["content-length"] == str(total)
        assert _peak_bytes(pid) - before < 48 << 20


def test_clients_that_wait_do_not_keep_others_waiting(sqlite_settings: Settings, stock: Backend) -> None:
    job = add_job(stock.database)
    with (
        api_process(sqlite_settings) as (port, _),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", limits=httpx.Limits(), timeout=40) as client,
        ThreadPoolExecutor(100) as pool,
    ):
        waiting = [pool.submit(client.get, f"/amalgamations/{job}?wait=30") for _ in range(100)]
        time.sleep(1)
        started = time.monotonic()
        assert client.get("/amalgamations").status_code == 200
        assert time.monotonic() - started < 15
        assert client.post(f"/amalgamations/{job}/cancel").status_code == 200
        assert {answer.result().json()["status"] for answer in waiting} == {"cancelled"}
        assert time.monotonic() - started < 25, "nobody waits for the end of the time"


def test_a_body_over_the_limit_is_answered_while_it_still_comes(sqlite_settings: Settings) -> None:
    with api_process(sqlite_settings) as (port, pid):
        before = _peak_bytes(pid)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.putrequest("POST", "/amalgamations")
        connection.putheader("Content-Type", "application/json")
        connection.putheader("Transfer-Encoding", "chunked")
        connection.endheaders()
        piece = b"100000\r\n" + b"[" * 0x100000 + b"\r\n"
        try:
            for _ in range(40):
                connection.send(piece)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the server has hung up, as it may: the answer is there already
        answer = connection.getresponse()
        assert answer.status == 413
        assert answer.getheader("content-type") == "application/problem+json"
        connection.close()
        assert _peak_bytes(pid) - before < 48 << 20


def test_endpoint_and_token_of_the_hub_come_from_its_own_variables(
    sqlite_settings: Settings, stock: Backend, tmp_path: Path
) -> None:
    with hub_server() as hub:
        commit = hub.add("acme/private", model_files(("a", "b")), gated=True)
        body = {"teachers": ["acme/private", add_model(stock)], "corpus": add_corpus(stock)}
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_test",
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
        }
        with api_process(sqlite_settings, **environment) as (port, pid):
            answer = httpx.post(f"http://127.0.0.1:{port}/amalgamations", json=body, timeout=30)
            resident = _peak_bytes(pid)
        assert answer.status_code == 202, answer.text
        assert answer.json()["teachers"][0]["commit"] == commit
        assert hub.authorizations == {"Bearer hf_test"}
        assert not any(request.endswith(".safetensors") for request in hub.requests), (
            "the API reads no weights"
        )
        assert resident < 200 << 20
