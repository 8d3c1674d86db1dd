"""Events over HTTP as they happen: what is on the wire, cuts, several processes, many listeners, the end."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from app.client import MukaClient
from app.domain.status import Status
from app.main import create_app
from app.services import jobs
from app.services.backend import Backend
from app.settings import Settings
from tests.e2e.service import muka
from tests.jobs import OWNER, add_job
from tests.live_service import api_process, listening, live_service
from tests.servers import free_port, wait_until

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Advance = Callable[..., None]
SSE = {"Accept": "text/event-stream"}


@pytest.fixture
def job_id(backend: Backend) -> str:
    """A queued job."""
    return add_job(backend.database)


@pytest.fixture
def ended(job_id: str, advance: Advance) -> str:
    """A job with three events that has succeeded."""
    advance(job_id, Status.SUCCEEDED)
    return job_id


def _ids(stream: Iterator[str]) -> Iterator[int]:
    return (int(line.removeprefix("id: ")) for line in stream if line.startswith("id: "))


class TestTheWire:
    def test_every_event_comes_with_number_type_and_json_and_then_the_stream_ends(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.SUCCEEDED)
        answer = api.get(f"/amalgamations/{job_id}/events", headers=SSE)
        page = api.get(f"/amalgamations/{job_id}/events")
        assert answer.headers["content-type"].partition(";")[0] == "text/event-stream"
        assert (answer.headers["cache-control"], answer.headers["x-accel-buffering"]) == ("no-store", "no")
        assert answer.headers["vary"] == page.headers["vary"] == "Accept"
        retry, *blocks, end = answer.text.split("\n\n")
        assert (retry, end) == ("retry: 2000", "")
        assert len(blocks) == len(page.json()["data"]) == 3
        for block, event in zip(blocks, page.json()["data"], strict=True):
            number, kind, content = block.split("\n")
            assert (number, kind) == (f"id: {event['sequence']}", f"event: {event['type']}")
            assert httpx.Response(200, content=content.removeprefix("data: ")).json() == event

    @pytest.mark.parametrize(
        ("query", "known", "expected"),
        [("?after=1", {}, 2), ("", {"Last-Event-ID": "1"}, 2), ("?after=0", {"Last-Event-ID": "2"}, 1)],
    )
    @on_sqlite
    def test_a_stream_goes_on_behind_the_number_that_the_client_knows(
        self, api: TestClient, ended: str, query: str, known: dict[str, str], expected: int
    ) -> None:
        answer = api.get(f"/amalgamations/{ended}/events{query}", headers=SSE | known)
        assert list(_ids(iter(answer.text.split("\n")))) == [1, 2, 3][-expected:]

    @on_sqlite
    def test_who_has_seen_the_end_is_told_not_to_reconnect(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.SUCCEEDED)
        answer = api.get(f"/amalgamations/{job_id}/events", headers=SSE | {"Last-Event-ID": "3"})
        assert (answer.status_code, answer.content) == (204, b"")

    @on_sqlite
    @pytest.mark.parametrize(
        ("accept", "kind"),
        [
            ("*/*", "application/json"),
            ("application/json, text/event-stream;q=0.5", "application/json"),
            ("text/event-stream;q=0, */*", "application/json"),
            ("text/event-stream;q=a", "application/json"),
            ("application/json;q=0.1, Text/Event-Stream", "text/event-stream"),
        ],
    )
    def test_what_the_client_prefers_is_what_it_gets(
        self, api: TestClient, job_id: str, advance: Advance, accept: str, kind: str
    ) -> None:
        advance(job_id, Status.SUCCEEDED)
        answer = api.get(f"/amalgamations/{job_id}/events", headers={"Accept": accept})
        assert answer.headers["content-type"].partition(";")[0] == kind

    @on_sqlite
    def test_what_cannot_be_streamed_is_a_problem(self, api: TestClient, job_id: str) -> None:
        for path, headers, status in (
            ("/amalgamations/amg-1/events", {}, 404),
            (f"/amalgamations/{job_id}/events", {"Last-Event-ID": "first"}, 422),
            (f"/amalgamations/{job_id}/events", {"Last-Event-ID": "-1"}, 422),
            (f"/amalgamations/{job_id}/events?after=-1", {}, 422),
        ):
            answer = api.get(path, headers=SSE | headers)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"


class TestListening:
    def test_events_come_as_they_happen(self, settings: Settings, job_id: str, advance: Advance) -> None:
        with (
            live_service(settings) as client,
            client.stream("GET", f"/amalgamations/{job_id}/events", headers=SSE) as answer,
        ):
            heard = _ids(answer.iter_lines())
            assert next(heard) == 1
            advance(job_id, Status.RUNNING)
            assert next(heard) == 2
            assert client.post(f"/amalgamations/{job_id}/cancel").status_code == 202
            assert next(heard) == 3

    @on_sqlite
    def test_silence_is_broken_by_comments(self, settings: Settings, job_id: str) -> None:
        quick = settings.model_copy(update={"event_ping_seconds": 0.1})
        with (
            live_service(quick) as client,
            client.stream("GET", f"/amalgamations/{job_id}/events?after=1", headers=SSE) as answer,
        ):
            lines = (line for line in answer.iter_lines() if line)
            assert [next(lines) for _ in range(3)] == ["retry: 2000", ": ping", ": ping"]

    @on_sqlite
    def test_a_client_that_leaves_frees_everything(self, settings: Settings, job_id: str) -> None:
        app = create_app(settings)
        with listening(app) as client:
            with ExitStack() as stack:
                streams = [
                    client.stream("GET", f"/amalgamations/{job_id}/events", headers=SSE) for _ in range(5)
                ]
                heard = [_ids(stack.enter_context(stream).iter_lines()) for stream in streams]
                assert [next(each) for each in heard] == [1] * 5
                assert app.state.live.feeds == 1
            wait_until(lambda: app.state.live.feeds == 0, "nobody listens")

    @on_sqlite
    def test_a_cut_stream_goes_on_where_it_was_cut(
        self, settings: Settings, job_id: str, advance: Advance
    ) -> None:
        """Through another process than the first one, as behind a load balancer."""
        with live_service(settings) as first, live_service(settings) as second:
            path = f"/amalgamations/{job_id}/events"
            with first.stream("GET", path, headers=SSE) as answer:
                known = next(_ids(answer.iter_lines()))
            advance(job_id, Status.SUCCEEDED)
            with second.stream("GET", path, headers=SSE | {"Last-Event-ID": str(known)}) as answer:
                assert list(_ids(answer.iter_lines())) == [2, 3]


def _hear(url: str) -> list[int]:
    with httpx.stream("GET", url, headers=SSE, timeout=60) as answer:
        return list(_ids(answer.iter_lines()))


def _threads(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text(encoding="ascii").partition("Threads:")[2].split()[0])


class TestProcesses:
    def test_a_hundred_listeners_of_two_processes_all_hear_the_end(
        self, settings: Settings, job_id: str
    ) -> None:
        with (
            api_process(settings) as (one, pid),
            api_process(settings) as (two, _),
            ThreadPoolExecutor(100) as pool,
        ):
            urls = [f"http://127.0.0.1:{port}/amalgamations/{job_id}" for port in (one, two)]
            heard = [pool.submit(_hear, f"{urls[number % 2]}/events") for number in range(100)]
            time.sleep(2)
            assert _threads(pid) < 60, "a listener costs no thread"
            started = time.monotonic()
            assert httpx.post(f"{urls[0]}/cancel").json()["status"] == "cancelled"
            assert [each.result() for each in heard] == [[1, 2]] * 100
            assert time.monotonic() - started < 30

    @on_sqlite
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_a_service_that_is_stopped_ends_its_streams_and_itself(
        self, settings: Settings, job_id: str, number: signal.Signals, tmp_path: Path
    ) -> None:
        with muka(["serve", "--port", "0"], tmp_path, _environment(settings)) as service:
            path = f"{service.url}/amalgamations/{job_id}"
            with ThreadPoolExecutor(1) as pool, httpx.stream("GET", f"{path}/events", headers=SSE) as answer:
                polled = pool.submit(httpx.get, f"{path}?wait=30", timeout=40)
                lines = answer.iter_lines()
                assert next(_ids(lines)) == 1
                time.sleep(0.5)
                started = time.monotonic()
                service.process.send_signal(number)
                assert not any(line.startswith("id: ") for line in lines), "it ends whole, without an error"
                assert polled.result().json()["status"] == "queued"
            service.process.wait(20)
            assert time.monotonic() - started < 15, "nobody waits for the poll"
            assert "Traceback" not in service.output()

    @on_sqlite
    def test_plain_uvicorn_stops_in_spite_of_a_listener(self, settings: Settings, job_id: str) -> None:
        with ExitStack() as stack:
            with api_process(settings) as (port, _):
                url = f"http://127.0.0.1:{port}/amalgamations/{job_id}/events"
                answer = stack.enter_context(httpx.stream("GET", url, headers=SSE))
                lines = answer.iter_lines()
                assert next(_ids(lines)) == 1
                started = time.monotonic()
            assert time.monotonic() - started < 15


def _environment(settings: Settings) -> dict[str, str]:
    return {
        "MUKA_DATA_DIR": str(settings.data_dir),
        "MUKA_STORE_DIR": str(settings.store_dir),
        "MUKA_DATABASE_URL": str(settings.database_url),
        "MUKA_BROKER_URL": str(settings.broker_url),
    }


@on_sqlite
def test_the_client_hears_every_event_once_through_a_restart(
    settings: Settings, backend: Backend, job_id: str
) -> None:
    port = free_port()
    with MukaClient(f"http://127.0.0.1:{port}") as client:
        with api_process(settings, port):
            job = client.amalgamations.get(job_id)
            events = job.stream()
            assert next(events).sequence == 1
        jobs.cancel(backend, OWNER, job_id)
        with api_process(settings, port):
            assert [event.data["status"] for event in events] == ["cancelled"]
            assert list(job.stream(after=2)) == []
