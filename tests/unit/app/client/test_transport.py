import json
import time
from email.utils import formatdate

import pytest

from app.client import (
    ConflictError,
    ConnectionFailedError,
    InputError,
    InvalidRequestError,
    MukaClient,
    NotFoundError,
    RateLimitedError,
    ServiceError,
    UnauthorizedError,
    UnexpectedAnswerError,
)
from tests.unit.app.client.scripted_server import DROP, Reply, ScriptedServer

CORPUS = {"id": "cor-1", "texts": 3}
JOB = {"id": "amg-1", "status": "queued"}


class TestErrors:
    def test_all_faults_of_a_body_are_in_the_message(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        faults = [
            {"pointer": "/teachers", "code": "too_few", "detail": "give at least two teachers"},
            {"pointer": "/training/epochs", "code": "range", "detail": "at least 1"},
        ]
        problem = {"status": 422, "code": "invalid_request", "detail": "2 faults", "request_id": "req-7"}
        server.on("POST", "/amalgamations", Reply.of(problem | {"errors": faults}, 422))
        with pytest.raises(InvalidRequestError) as caught:
            client.amalgamations.create(teachers=["a/b"], corpus="cor-1")
        assert str(caught.value) == (
            "2 faults\n  /teachers: give at least two teachers\n  /training/epochs: at least 1"
        )
        assert (caught.value.code, caught.value.request_id) == ("invalid_request", "req-7")

    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (401, UnauthorizedError),
            (404, NotFoundError),
            (409, ConflictError),
            (422, InvalidRequestError),
            (500, ServiceError),
        ],
    )
    def test_each_status_has_its_class(
        self, server: ScriptedServer, client: MukaClient, status: int, kind: type[Exception]
    ) -> None:
        server.on("GET", "/corpora/cor-1", Reply.of({"detail": "no"}, status))
        with pytest.raises(kind, match=r"^no$"):
            client.corpora.get("cor-1")

    def test_a_proxys_html_page_is_an_error_with_its_status(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        server.on("GET", "/corpora/cor-1", Reply(500, b"<html>oops</html>"))
        with pytest.raises(ServiceError, match="the service answered 500 Internal Server Error"):
            client.corpora.get("cor-1")

    def test_an_answer_of_another_service_is_named_as_such(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        server.on("GET", "/corpora/cor-1", Reply(200, b"<html>hello</html>"))
        with pytest.raises(UnexpectedAnswerError, match="is the URL that of a muka service"):
            client.corpora.get("cor-1")

    def test_nothing_listening_asks_whether_serve_runs(self) -> None:
        client = MukaClient("http://127.0.0.1:9", retries=0)
        with client, pytest.raises(ConnectionFailedError, match=r"is `muka serve` running"):
            client.corpora.get("cor-1")

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://host", "http://", "nonsense"])
    def test_an_address_that_is_no_url_is_refused(self, url: str) -> None:
        with pytest.raises(InputError, match=r"write it as http://127\.0\.0\.1:8000"):
            MukaClient(url)

    def test_fields_of_a_newer_service_are_kept(self, server: ScriptedServer, client: MukaClient) -> None:
        server.on("GET", "/corpora/cor-1", Reply.of(CORPUS | {"language": "en"}))
        assert client.corpora.get("cor-1").model_extra == {"language": "en"}


class TestRetries:
    def test_a_dropped_get_is_sent_again(self, server: ScriptedServer, client: MukaClient) -> None:
        server.on("GET", "/corpora/cor-1", DROP, Reply.of(CORPUS))
        assert client.corpora.get("cor-1").texts == 3
        assert len(server.requests) == 2

    def test_retry_after_is_obeyed(self, server: ScriptedServer, client: MukaClient) -> None:
        busy = Reply.of({"detail": "busy"}, 429, Retry_After="1")
        server.on("GET", "/corpora/cor-1", busy, Reply.of(CORPUS))
        started = time.monotonic()
        client.corpora.get("cor-1")
        assert time.monotonic() - started >= 1

    def test_retry_after_may_be_a_date(self, server: ScriptedServer, client: MukaClient) -> None:
        busy = Reply.of({"detail": "busy"}, 503, Retry_After=formatdate(time.time() + 1, usegmt=True))
        server.on("GET", "/corpora/cor-1", busy, Reply.of(CORPUS))
        assert client.corpora.get("cor-1").id == "cor-1"

    def test_a_service_that_asks_for_an_hour_gets_no_silent_caller(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        server.on("GET", "/corpora/cor-1", Reply.of({"detail": "come back later"}, 429, Retry_After="3600"))
        with pytest.raises(RateLimitedError, match="come back later"):
            client.corpora.get("cor-1")
        assert len(server.requests) == 1

    def test_it_gives_up_in_the_end(self, server: ScriptedServer) -> None:
        server.on("GET", "/corpora/cor-1", DROP)
        with MukaClient(server.url, retries=1) as client, pytest.raises(ConnectionFailedError, match="broke"):
            client.corpora.get("cor-1")
        assert len(server.requests) == 2

    def test_errors_of_the_caller_are_not_sent_again(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        with pytest.raises(NotFoundError):
            client.corpora.get("cor-1")
        assert len(server.requests) == 1

    def test_a_retried_create_carries_the_same_idempotency_key(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        server.on("POST", "/amalgamations", DROP, Reply.of(JOB, 202))
        client.amalgamations.create(teachers=["a/b", "c/d"], corpus="cor-1")
        first, second = server.requests
        assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"] != ""
        assert json.loads(second.body) == {"teachers": ["a/b", "c/d"], "corpus": "cor-1"}

    def test_a_create_that_is_still_carried_out_is_asked_for_until_it_has_an_answer(
        self, server: ScriptedServer
    ) -> None:
        in_flight = Reply.of({"code": "request_in_flight", "detail": "wait"}, 409, Retry_After="0")
        server.on("POST", "/amalgamations", in_flight, in_flight, in_flight, Reply.of(JOB, 202))
        with MukaClient(server.url, retries=0) as client:
            assert client.amalgamations.create(teachers=["a/b", "c/d"], corpus="cor-1").id == "amg-1"
        assert len({request.headers["Idempotency-Key"] for request in server.requests}) == 1

    def test_a_create_that_stays_in_flight_is_given_up(
        self, server: ScriptedServer, client: MukaClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.client.transport.IN_FLIGHT_SECONDS", 0.3)
        in_flight = Reply.of({"code": "request_in_flight", "detail": "wait"}, 409, Retry_After="0")
        server.on("POST", "/amalgamations", in_flight)
        with pytest.raises(ConflictError, match="wait"):
            client.amalgamations.create(teachers=["a/b", "c/d"], corpus="cor-1")

    def test_two_creates_have_two_keys(self, server: ScriptedServer, client: MukaClient) -> None:
        server.on("POST", "/amalgamations", Reply.of(JOB, 202))
        for _ in range(2):
            client.amalgamations.create(teachers=["a/b", "c/d"], corpus="cor-1")
        first, second = server.requests
        assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]

    def test_a_retried_upload_sends_the_file_from_its_beginning(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        server.on("POST", "/corpora", DROP, Reply.of(CORPUS, 201))
        client.corpora.upload(["one", "two"])
        assert all(b'{"text": "one"}\n{"text": "two"}\n' in request.body for request in server.requests)

    def test_the_key_is_sent_as_bearer(self, server: ScriptedServer) -> None:
        server.on("GET", "/corpora/cor-1", Reply.of(CORPUS))
        with MukaClient(server.url, api_key="secret") as client:
            client.corpora.get("cor-1")
        assert server.requests[0].headers["Authorization"] == "Bearer secret"


class TestLists:
    def test_pages_are_followed_by_their_last_id(self, server: ScriptedServer, client: MukaClient) -> None:
        first = {"data": [{"id": "cor-3"}, {"id": "cor-2"}], "has_more": True, "last_id": "cor-2"}
        last = {"data": [{"id": "cor-1"}], "has_more": False, "last_id": "cor-1"}
        server.on("GET", "/corpora", Reply.of(first), Reply.of(last))
        assert [corpus.id for corpus in client.corpora.list(page_size=2)] == ["cor-3", "cor-2", "cor-1"]
        assert [request.query for request in server.requests] == [
            "order=desc&limit=2",
            "order=desc&limit=2&after=cor-2",
        ]

    def test_the_next_page_is_read_only_when_it_is_needed(
        self, server: ScriptedServer, client: MukaClient
    ) -> None:
        page = {"data": [{"id": "cor-3"}], "has_more": True, "last_id": "cor-3"}
        server.on("GET", "/corpora", Reply.of(page))
        assert next(client.corpora.list()).id == "cor-3"
        assert len(server.requests) == 1

    def test_metadata_filters_are_sent(self, server: ScriptedServer, client: MukaClient) -> None:
        server.on("GET", "/amalgamations", Reply.of({"data": [JOB], "has_more": False}))
        (job,) = client.amalgamations.list(status="queued", metadata={"team": "support"})
        assert job.id == "amg-1"
        assert server.requests[0].query == "status=queued&order=desc&metadata%5Bteam%5D=support&limit=100"
