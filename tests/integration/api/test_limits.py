"""Limits on what one owner, and all uploads at once, may ask for; each states its value and the cure."""

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.domain.access import Scope
from app.domain.status import Status
from app.main import create_app
from app.services import keys
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_corpus, add_model
from tests.live_service import listening
from tests.servers import wait_until

PAIRS = (("refund", "invoice"), ("late", "lost"))


class TestQueue:
    @pytest.fixture
    def narrow(self, settings: Settings) -> Iterator[TestClient]:
        limited = settings.model_copy(update={"max_queued_jobs": 2, "host": "0.0.0.0"})
        with TestClient(create_app(limited)) as api:
            yield api

    def _submit(self, api: TestClient, backend: Backend, owner: str, **headers: str) -> Any:
        _, key = keys.create(backend.database, owner, [Scope.WRITE])
        recipe = {
            "teachers": [add_model(backend, labels, owner=owner) for labels in PAIRS],
            "corpus": add_corpus(backend, owner=owner),
        }
        authorization = {"Authorization": f"Bearer {key}"}
        return api.post("/amalgamations", json=recipe, headers=headers | authorization)

    def test_of_an_owner_is_bounded_and_the_problem_says_so(
        self, narrow: TestClient, backend: Backend, advance: Callable[..., None]
    ) -> None:
        first, second, third = (self._submit(narrow, backend, "acme") for _ in range(3))
        assert [answer.status_code for answer in (first, second, third)] == [202, 202, 429]
        problem = third.json()
        assert problem["code"] == "too_many_queued_jobs"
        assert "2 of your jobs are queued" in problem["detail"]
        assert "MUKA_MAX_QUEUED_JOBS is 2" in problem["detail"]
        assert int(third.headers["retry-after"]) > 0
        assert self._submit(narrow, backend, "beta").status_code == 202, (
            "another owner has a queue of its own"
        )
        advance(first.json()["id"], Status.RUNNING)
        assert self._submit(narrow, backend, "acme").status_code == 202, "what runs is not queued"

    def test_stores_nothing_of_what_it_refuses(self, narrow: TestClient, backend: Backend) -> None:
        _, key = keys.create(backend.database, "acme", [Scope.WRITE, Scope.READ])
        headers = {"Authorization": f"Bearer {key}"}
        teachers = [add_model(backend, labels, owner="acme") for labels in PAIRS]
        for number in range(3):
            recipe = {"teachers": teachers, "corpus": {"texts": [f"text {number}", "another"]}}
            answer = narrow.post("/amalgamations", json=recipe, headers=headers)
        assert answer.status_code == 429
        assert len(narrow.get("/corpora", headers=headers).json()["data"]) == 2

    def test_lets_a_repeated_request_have_its_answer(self, narrow: TestClient, backend: Backend) -> None:
        _, key = keys.create(backend.database, "acme", [Scope.WRITE])
        headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "order-1"}
        teachers = [add_model(backend, labels, owner="acme") for labels in PAIRS]
        recipe = {"teachers": teachers, "corpus": add_corpus(backend, owner="acme")}
        first = narrow.post("/amalgamations", json=recipe, headers=headers)
        assert self._submit(narrow, backend, "acme").status_code == 202
        again = narrow.post("/amalgamations", json=recipe, headers=headers)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])


class TestUploads:
    @pytest.fixture
    def app(self, sqlite_settings: Settings) -> FastAPI:
        return create_app(sqlite_settings.model_copy(update={"max_uploads": 2}))

    @pytest.fixture
    def service(self, app: FastAPI) -> Iterator[httpx.Client]:
        with listening(app) as client:
            yield client

    def test_at_once_are_bounded_and_the_next_one_finds_room_again(
        self, app: FastAPI, service: httpx.Client
    ) -> None:
        end, answers = threading.Event(), []

        def slow(number: int) -> Iterator[bytes]:
            yield f"text {number}\n".encode()
            while not end.wait(0.1):
                yield b"and more\n"

        uploads = [
            threading.Thread(target=lambda number=number: answers.append(_upload(service, slow(number))))
            for number in range(2)
        ]
        for upload in uploads:
            upload.start()
        try:
            wait_until(lambda: app.state.upload_slots.free == 0, "both places are taken")
            refused = _upload(service, b"one\ntoo many\n")
        finally:
            end.set()
            for upload in uploads:
                upload.join()
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_uploads")
        assert "MUKA_MAX_UPLOADS is 2" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) > 0
        assert [answer.status_code for answer in answers] == [201, 201]
        assert _upload(service, b"at last\nthere is room\n").status_code == 201

    def test_that_stand_still_lose_their_place(self, sqlite_settings: Settings) -> None:
        limits = {"max_uploads": 2, "upload_idle_seconds": 1.0}
        app = create_app(sqlite_settings.model_copy(update=limits))
        with listening(app) as service:
            for _ in range(2):
                answer = _stalled_upload(str(service.base_url.host), int(service.base_url.port or 0))
                assert answer.startswith(b"HTTP/1.1 408")
                assert b"MUKA_UPLOAD_IDLE_SECONDS" in answer
            assert app.state.upload_slots.free == 2

    def test_that_only_drip_lose_their_place(self, sqlite_settings: Settings) -> None:
        """Each byte comes well within the time in which one must come."""
        slow = {"upload_idle_seconds": 1.0, "upload_min_bytes_per_second": 1000}
        app, end = create_app(sqlite_settings.model_copy(update=slow)), threading.Event()

        def drops() -> Iterator[bytes]:
            while not end.wait(0.05):
                yield b"x\n"

        with listening(app) as service:
            answer = _upload(service, drops())
            end.set()
            assert (answer.status_code, answer.json()["code"]) == (408, "upload_too_slow")
            assert "MUKA_UPLOAD_MIN_BYTES_PER_SECOND" in answer.json()["detail"]
            assert app.state.upload_slots.free == sqlite_settings.max_uploads
            assert service.get("/corpora").json()["data"] == []

    def test_that_are_slow_but_quick_enough_arrive(self, sqlite_settings: Settings) -> None:
        """They take longer than the time in which some must come."""
        slow = {"upload_idle_seconds": 2.0, "upload_min_bytes_per_second": 100}
        end = threading.Event()

        def pieces() -> Iterator[bytes]:
            for number in range(25):
                end.wait(0.1)
                yield b"%0100d\n" % number

        with listening(create_app(sqlite_settings.model_copy(update=slow))) as service:
            answer = _upload(service, pieces())
            assert (answer.status_code, answer.json()["texts"]) == (201, 25)

    def test_that_are_refused_give_their_place_back(self, app: FastAPI, service: httpx.Client) -> None:
        for content in (b"", b"\n\n", b"\0\xff\xfe"):
            assert _upload(service, content).status_code == 422
        assert app.state.upload_slots.free == 2


def _upload(service: httpx.Client, content: bytes | Iterator[bytes]) -> httpx.Response:
    return service.post("/corpora", params={"filename": "a.txt"}, content=content)


def _stalled_upload(host: str, port: int) -> bytes:
    """Sends a first text of many, and waits for the others as long as the service does."""
    head = f"POST /corpora?filename=a.txt HTTP/1.1\r\nHost: {host}\r\nContent-Length: 1000\r\n\r\n"
    with socket.create_connection((host, port), timeout=20) as connection:
        connection.sendall(head.encode() + b"a first text\n")
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer
