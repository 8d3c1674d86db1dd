"""What holds for every route: problems, request ids, the key, limits, health."""

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import APIRouter
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.main import create_app
from app.services.backend import Backend
from app.services.readiness import Readiness
from app.settings import Settings
from app.storage import StoreError

PROBLEM = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}


class TestProblems:
    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nothing/here", 404, "not_found"),
            ("PUT", "/amalgamations", 405, "method_not_allowed"),
            ("GET", "/amalgamations/amg-1", 404, "not_found"),
            ("GET", "/amalgamations?limit=0", 422, "invalid_request"),
            ("POST", "/amalgamations", 422, "invalid_request"),
        ],
    )
    def test_every_error_has_the_one_form(
        self, sqlite_api: TestClient, method: str, path: str, status: int, code: str
    ) -> None:
        answer = sqlite_api.request(method, path, headers={"X-Request-Id": "mine-1"})
        problem = answer.json()
        assert answer.headers["content-type"] == "application/problem+json"
        assert problem.keys() == PROBLEM
        assert (answer.status_code, problem["status"], problem["code"]) == (status, status, code)
        assert problem["type"] == f"urn:muka:problem:{code}"
        assert problem["instance"] == path.partition("?")[0]
        assert problem["request_id"] == answer.headers["x-request-id"] == "mine-1"

    def test_405_says_what_is_allowed(self, sqlite_api: TestClient) -> None:
        allowed = sqlite_api.put("/amalgamations").headers["allow"]
        assert set(allowed.split(", ")) == {"GET", "POST"}

    def test_an_unexpected_error_tells_its_id_and_nothing_else(
        self, sqlite_settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        app, room = create_app(sqlite_settings), APIRouter()

        @room.get("/broken")
        def broken() -> None:
            raise RuntimeError("secret of /work/main")

        app.include_router(room)
        with TestClient(app) as api, caplog.at_level(logging.ERROR):
            answer = api.get("/broken")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] in caplog.text
        assert "secret of /work/main" in caplog.text, "the log has what the answer has not"

    def test_a_store_that_fails_is_a_503_without_its_path(
        self, sqlite_settings: Settings, caplog: pytest.LogCaptureFixture
    ) -> None:
        app, room = create_app(sqlite_settings), APIRouter()

        @room.get("/full")
        def full() -> None:
            raise StoreError("/srv/store is full")

        app.include_router(room)
        with TestClient(app) as api:
            answer = api.get("/full")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
        assert answer.headers["retry-after"] == "5"
        assert "/srv" not in answer.text
        assert "/srv" in caplog.text

    def test_a_database_that_is_gone_is_a_503(self, sqlite_settings: Settings) -> None:
        settings = sqlite_settings.model_copy(update={"database_url": "postgresql://u:geheim@127.0.0.1:1/x"})
        with TestClient(create_app(settings)) as api:
            answer = api.get("/amalgamations")
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert "geheim" not in answer.text
        assert "127.0.0.1" not in answer.text


class TestRequestId:
    def test_is_on_every_answer_and_fresh(self, sqlite_api: TestClient) -> None:
        first, second = (sqlite_api.get("/healthz").headers["x-request-id"] for _ in range(2))
        assert first.startswith("req-")
        assert first != second

    def test_of_the_client_is_kept_when_it_is_harmless(self, sqlite_api: TestClient) -> None:
        for given in ("a b", "x" * 129, "<script>", "\u00e4".encode("latin-1")):
            answer = sqlite_api.get("/healthz", headers={"X-Request-Id": given})
            assert answer.headers["x-request-id"].startswith("req-")


class TestBodyLimit:
    def test_a_body_over_the_limit_is_refused_before_it_is_read(self, sqlite_api: TestClient) -> None:
        answer = sqlite_api.post(
            "/amalgamations", content=b"[" * (5 << 20), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")
        assert "4,194,304" in answer.json()["detail"]
        assert answer.headers["connection"] == "close"

    def test_a_body_without_a_length_is_refused_while_it_streams(self, sqlite_api: TestClient) -> None:
        sent = 0

        def endless() -> Iterator[bytes]:
            nonlocal sent
            for _ in range(64):
                sent += 1 << 20
                yield b"[" * (1 << 20)

        answer = sqlite_api.post(
            "/amalgamations", content=endless(), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


class TestKey:
    @pytest.fixture
    def guarded(self, sqlite_settings: Settings) -> Iterator[TestClient]:
        settings = sqlite_settings.model_copy(update={"api_key": SecretStr("k\u00e9y")})
        with TestClient(create_app(settings)) as api:
            yield api

    def test_is_asked_for_on_every_route_but_health_and_the_document(self, guarded: TestClient) -> None:
        document = guarded.get("/openapi.json").json()
        for path, operations in document["paths"].items():
            for method in operations:
                url = path.replace("{job_id}", "x").replace("{student_id}", "x").replace("{path}", "x")
                for name in ("{corpus_id}", "{model_id}"):
                    url = url.replace(name, "x")
                answer = guarded.request(method, url)
                if path in ("/healthz", "/readyz"):
                    assert answer.status_code in (200, 503)
                else:
                    assert answer.status_code == 401, f"{method} {path}"
                    assert answer.headers["www-authenticate"] == "Bearer"

    def test_wrong_keys_are_refused_and_the_right_one_is_taken(self, guarded: TestClient) -> None:
        for header in (b"Bearer wrong", b"Basic a2V5", b"Bearer", b"key", "Bearer k\u00e9yy".encode()):
            answer = guarded.get("/students", headers={"Authorization": header})
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
            assert "wrong" not in answer.text

    def test_the_right_key_is_taken(self, sqlite_settings: Settings) -> None:
        settings = sqlite_settings.model_copy(update={"api_key": SecretStr("key")})
        with TestClient(create_app(settings)) as api:
            assert api.get("/students", headers={"Authorization": "Bearer key"}).status_code == 200


class TestHealth:
    def test_the_process_is_alive_and_ready(self, api: TestClient) -> None:
        assert (api.get("/healthz").json(), api.get("/readyz").json()) == ({"status": "ok"}, {"status": "ok"})

    def test_readiness_names_the_parts_that_do_not_answer(
        self, settings: Settings, backend: Backend, tmp_path: Path
    ) -> None:
        assert Readiness(backend).failing() == []
        blocked = tmp_path / "a-file"
        blocked.write_text("x")
        broken = settings.model_copy(
            update={
                "database_url": "postgresql://u@127.0.0.1:1/x",
                "broker_url": "redis://127.0.0.1:1/0",
                "store_dir": blocked,
            }
        )
        with TestClient(create_app(broken)) as api:
            answer = api.get("/readyz")
            assert api.get("/healthz").status_code == 200
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "database, broker, store" in answer.json()["detail"]

    def test_a_part_that_hangs_is_asked_once_and_never_holds_the_answer(
        self, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.readiness.PATIENCE_SECONDS", 0.2)
        release, asked = threading.Event(), []

        def hang() -> None:
            asked.append(1)
            release.wait(10)

        readiness = Readiness(backend)
        readiness._parts["broker"] = hang
        assert readiness.failing() == ["broker"]
        assert readiness.failing() == ["broker"]
        assert len(asked) == 1
        release.set()
        readiness._checks["broker"].join()
        assert readiness.failing() == []
