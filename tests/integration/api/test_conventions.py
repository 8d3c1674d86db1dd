"""The conventions of the REST contract on a live service: a class a row of the table, its headline rules.

What lies behind a row is tested in depth in files of its own, which the classes name.
"""

import hashlib
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from sqlalchemy import update
from standardwebhooks import Webhook as Receiver

from app.domain.access import Scope
from app.domain.status import Status
from app.persistence.tables import Corpus
from app.persistence.time import now
from app.services import keys
from app.services.backend import Backend
from app.services.sweeper import sweep
from app.settings import Settings
from tests.api_objects import add_model, add_student, model_files
from tests.jobs import add_job
from tests.live_service import live_service
from tests.servers import wait_until
from tests.unit.app.client.scripted_server import Reply, running

Json = dict[str, Any]
Advance = Callable[..., None]
KEY = "of-the-setting"
PROBLEM = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
SSE = {"Accept": "text/event-stream"}
TEXTS = b"where is my parcel\nI was charged twice\n"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    own = {
        "api_key": SecretStr(KEY),
        "event_ping_seconds": 0.2,
        "max_queued_jobs": 3,
        "max_teachers": 3,
        "webhook_allowed_networks": (ip_network("127.0.0.0/8"),),
    }
    return settings.model_copy(update=own)


@pytest.fixture
def api(settings: Settings, backend: Backend) -> Iterator[httpx.Client]:
    """A client with a key, over real HTTP, of a service on SQLite and on Postgres."""
    with live_service(settings) as client:
        client.headers["Authorization"] = f"Bearer {KEY}"
        yield client


@pytest.fixture
def recipe(api: httpx.Client, backend: Backend) -> Json:
    """A sound body of `POST /amalgamations`."""
    teachers = [add_model(backend, labels) for labels in (("refund", "invoice"), ("late", "lost"))]
    return {"teachers": teachers, "corpus": _corpus(api)["id"]}


def _corpus(api: httpx.Client, content: bytes = TEXTS, **headers: str) -> Json:
    answer = api.post("/corpora", params={"filename": "inbox.txt"}, content=content, headers=headers)
    assert answer.status_code in (200, 201), answer.text
    made: Json = answer.json()
    return made


class TestErrors:
    """In depth: test_every_route.py, test_create_amalgamation.py."""

    @pytest.mark.parametrize(
        ("method", "path", "status", "code"),
        [
            ("GET", "/nothing/here", 404, "not_found"),
            ("PUT", "/amalgamations", 405, "method_not_allowed"),
            ("GET", "/amalgamations?limit=x&order=y", 422, "invalid_request"),
            ("GET", "/students/stu-1", 404, "not_found"),
        ],
    )
    def test_are_problems_also_where_the_framework_makes_them(
        self, api: httpx.Client, method: str, path: str, status: int, code: str
    ) -> None:
        answer = api.request(method, path)
        problem = answer.json()
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert problem.keys() == PROBLEM
        assert (problem["status"], problem["code"]) == (status, code)
        assert (problem["type"], problem["instance"]) == (f"urn:muka:problem:{code}", path.partition("?")[0])
        assert problem["request_id"] == answer.headers["x-request-id"]

    def test_tell_all_faults_of_a_body_at_once(self, api: httpx.Client) -> None:
        body = {"teachers": ["mdl-none", 5], "corpus": "cor-none", "training": {"epochs": 0}, "nope": 1}
        answer = api.post("/amalgamations", json=body)
        assert answer.status_code == 422
        told = {fault["pointer"] for fault in answer.json()["errors"]}
        assert told == {"/teachers/0/model", "/teachers/1", "/corpus", "/training/epochs", "/nope"}
        assert all(fault["code"] and fault["detail"] for fault in answer.json()["errors"])

    def test_under_hub_have_the_hubs_own_form(self, api: httpx.Client) -> None:
        answer = api.get(f"/hub/api/models/students/stu-{'0' * 32}")
        assert (answer.status_code, answer.headers["x-error-code"]) == (404, "RepoNotFound")
        assert answer.json().keys() == {"error"}


class TestLists:
    """In depth: test_amalgamations.py."""

    def test_have_pages_that_link_to_the_next_and_never_shift(
        self, api: httpx.Client, backend: Backend
    ) -> None:
        made = [add_model(backend, (f"a{number}", f"b{number}")) for number in range(5)]
        seen, url = [], "/models?limit=2"
        while url:
            page = api.get(url)
            assert page.json().keys() == {"data", "has_more", "first_id", "last_id"}
            ids = [each["id"] for each in page.json()["data"]]
            assert (page.json()["first_id"], page.json()["last_id"]) == (ids[0], ids[-1])
            assert page.json()["has_more"] == ("link" in page.headers)
            seen += ids
            add_model(backend, (f"new{len(seen)}", "other"))  # newer than all, so on no page to come
            link = re.fullmatch(r'<(.+)>; rel="next"', page.headers.get("link", ""))
            url = link[1] if link else ""
        assert seen == made[::-1], "the newest first, none twice, none left out"
        oldest = api.get("/models", params={"limit": 5, "order": "asc"}).json()["data"]
        assert [each["id"] for each in oldest] == made

    def test_are_filtered_by_status_and_metadata(
        self, api: httpx.Client, recipe: Json, advance: Advance
    ) -> None:
        first, second = (
            api.post("/amalgamations", json=recipe | {"metadata": {"team": team}}).json()["id"]
            for team in ("support", "sales")
        )
        advance(first, Status.FAILED)

        def found(**query: str) -> list[str]:
            return [each["id"] for each in api.get("/amalgamations", params=query).json()["data"]]

        assert found(status="failed") == found(**{"metadata[team]": "support"}) == [first]
        assert found(status="queued", **{"metadata[team]": "sales"}) == [second]
        assert found(status="queued", **{"metadata[team]": "support"}) == []


class TestIdempotency:
    """In depth: test_create_amalgamation.py, test_idempotent_uploads.py, test_webhooks.py."""

    def test_a_repeated_post_gets_the_stored_answer_and_another_body_is_refused(
        self, api: httpx.Client, recipe: Json
    ) -> None:
        once = {"Idempotency-Key": "order-1"}
        bodies: dict[str, tuple[Json, Json]] = {
            "/amalgamations": ({"json": recipe}, {"json": recipe | {"name": "another"}}),
            "/corpora?filename=a.txt": ({"content": TEXTS}, {"content": b"other texts\n"}),
            "/webhooks": (
                {"json": {"url": "http://127.0.0.1:9/"}},
                {"json": {"url": "http://127.0.0.1:8/"}},
            ),
        }
        for path, (body, other) in bodies.items():
            first, again = (api.post(path, headers=once, **body) for _ in range(2))
            assert again.json() == first.json()
            assert (again.status_code, again.headers["location"]) == (
                first.status_code,
                first.headers["location"],
            )
            assert (again.headers["idempotency-replayed"], "idempotency-replayed" in first.headers) == (
                "true",
                False,
            )
            refused = api.post(path, headers=once, **other)
            assert (refused.status_code, refused.json()["code"]) == (422, "idempotency_key_reused")

    def test_requests_in_flight_under_one_key_make_one_job(self, api: httpx.Client, recipe: Json) -> None:
        def post(_: int) -> httpx.Response:
            return api.post("/amalgamations", json=recipe, headers={"Idempotency-Key": "order-1"})

        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(post, range(8)))
        in_flight = [answer for answer in answers if answer.status_code == 409]
        assert {answer.status_code for answer in answers} <= {202, 409}
        assert len({answer.json()["id"] for answer in answers if answer not in in_flight}) == 1
        assert {answer.json()["code"] for answer in in_flight} <= {"request_in_flight"}
        assert {answer.headers["retry-after"] for answer in in_flight} <= {"1"}
        assert post(0).headers["idempotency-replayed"] == "true"
        assert len(api.get("/amalgamations").json()["data"]) == 1

    def test_a_key_is_one_api_keys_own(self, api: httpx.Client, backend: Backend) -> None:
        _, colleague = keys.create(backend.database, "default", [Scope.WRITE])
        body, once = {"url": "http://127.0.0.1:9/"}, {"Idempotency-Key": "order-1"}
        first = api.post("/webhooks", json=body, headers=once)
        other = api.post("/webhooks", json=body, headers=once | {"Authorization": f"Bearer {colleague}"})
        assert first.json()["id"] != other.json()["id"]


class TestPolling:
    """In depth: test_amalgamations.py."""

    def test_an_unchanged_job_costs_nothing_and_says_when_to_look_again(
        self, api: httpx.Client, recipe: Json, advance: Advance
    ) -> None:
        created = api.post("/amalgamations", json=recipe)
        url = created.headers["location"]
        assert (created.status_code, int(created.headers["retry-after"]) > 0) == (202, True)
        first = api.get(url)
        unchanged = api.get(url, headers={"If-None-Match": first.headers["etag"]})
        assert (unchanged.status_code, unchanged.content) == (304, b"")
        assert int(first.headers["retry-after"]) > 0
        advance(created.json()["id"], Status.FAILED)
        changed = api.get(url, headers={"If-None-Match": first.headers["etag"]})
        assert (changed.status_code, changed.json()["status"]) == (200, "failed")
        assert "retry-after" not in changed.headers

    def test_a_long_poll_waits_for_the_change_and_for_a_minute_at_most(
        self, api: httpx.Client, backend: Backend
    ) -> None:
        job_id = add_job(backend.database)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(api.get, f"/amalgamations/{job_id}", params={"wait": 60})
            assert api.post(f"/amalgamations/{job_id}/cancel").status_code == 200
            assert waiting.result(60).json()["status"] == "cancelled"
        assert api.get(f"/amalgamations/{job_id}", params={"wait": 61}).status_code == 422


class TestEvents:
    """In depth: test_live_events.py."""

    def test_are_a_page_or_a_stream_under_one_url(self, api: httpx.Client, backend: Backend) -> None:
        job_id = add_job(backend.database)
        url, heard, silent = f"/amalgamations/{job_id}/events", [], threading.Event()

        def listen() -> None:
            with api.stream("GET", url, headers=SSE) as stream:
                for line in stream.iter_lines():
                    heard.append(line)
                    if line.startswith(": ping"):
                        silent.set()

        with ThreadPoolExecutor(1) as threads:
            listening = threads.submit(listen)
            assert silent.wait(60), "a stream in which nothing happens says so"
            api.post(f"/amalgamations/{job_id}/cancel")
            listening.result(60)  # the stream ends with the event that ends the job
        page = api.get(url).json()
        numbers = [event["sequence"] for event in page["data"]]
        assert numbers == list(range(1, len(numbers) + 1))
        assert [line for line in heard if line.startswith("id:")] == [f"id: {number}" for number in numbers]
        replayed = api.get(url, headers=SSE | {"Last-Event-ID": "1"}).text
        assert re.findall(r"^id: (\d+)$", replayed, re.MULTILINE) == [str(number) for number in numbers[1:]]


class TestDownloads:
    """In depth: test_students.py, test_live_server.py, test_hub_clients.py."""

    def test_have_checksums_and_go_on_where_they_broke_off(self, api: httpx.Client, backend: Backend) -> None:
        content = model_files(("a", "b"))["model.safetensors"]
        student = add_student(backend, model_files(("a", "b")))
        files = api.get(f"/students/{student}/files").json()["data"]
        digest = hashlib.sha256(content)
        expected = {
            "path": "model.safetensors",
            "size_bytes": len(content),
            "sha256": digest.hexdigest(),
        }
        assert expected in files
        url = f"/students/{student}/files/model.safetensors"
        whole = api.get(url, headers={"Accept-Encoding": "gzip"})
        assert (whole.content, whole.headers["etag"]) == (content, f'"{digest.hexdigest()}"')
        assert whole.headers["repr-digest"] == f"sha-256=:{b64encode(digest.digest()).decode()}:"
        assert (whole.headers["content-length"], "content-encoding" in whole.headers) == (
            str(len(content)),
            False,
        )
        assert api.head(url).headers["content-length"] == str(len(content))
        rest = {"Range": "bytes=4-"}
        part = api.get(url, headers=rest | {"If-Range": whole.headers["etag"]})
        assert (part.status_code, part.content) == (206, content[4:])
        assert api.get(url, headers=rest | {"If-Range": '"another"'}).content == content
        operation = api.get("/openapi.json").json()["paths"]["/students/{student_id}/files/{path}"]["get"]
        headers = {each["name"] for each in operation["parameters"] if each["in"] == "header"}
        assert headers == {"Range", "If-Range", "If-None-Match"}


class TestWebhooks:
    """In depth: test_webhooks.py, test_webhook_delivery.py, tests/unit/app/outbound."""

    def test_are_signed_retried_under_the_same_id_and_logged(
        self, api: httpx.Client, backend: Backend
    ) -> None:
        with running() as receiver:
            receiver.on("POST", "/hook", Reply(503), Reply(204))
            webhook = api.post("/webhooks", json={"url": f"{receiver.url}/hook"}).json()
            job_id = add_job(backend.database)
            api.post(f"/amalgamations/{job_id}/cancel")
            log = f"/webhooks/{webhook['id']}/deliveries?status=succeeded"
            [delivery] = wait_until(lambda: api.get(log).json()["data"], "the message is delivered")
        assert [attempt["status_code"] for attempt in delivery["attempts"]] == [503, 204]
        first, second = receiver.requests
        for request in (first, second):
            message = Receiver(webhook["secret"]).verify(request.body, dict(request.headers))
            assert message["type"] == delivery["event"] == "amalgamation.cancelled"
            assert {name.lower(): value for name, value in request.headers.items()}["webhook-id"] == (
                delivery["id"]
            )

    def test_are_not_sent_into_private_networks_that_no_setting_names(self, api: httpx.Client) -> None:
        for url in ("https://10.0.0.1/hook", "https://169.254.169.254/latest/meta-data"):
            answer = api.post("/webhooks", json={"url": url})
            assert (answer.status_code, answer.json()["errors"][0]["code"]) == (422, "webhook_url_refused")


class TestRetention:
    """In depth: test_expiry.py, test_sweeper.py."""

    def test_every_object_shows_when_it_expires(
        self, api: httpx.Client, recipe: Json, backend: Backend
    ) -> None:
        add_student(backend)
        api.post("/amalgamations", json=recipe)
        api.post("/webhooks", json={"url": "http://127.0.0.1:9/"})
        for collection in ("models", "students", "amalgamations", "webhooks"):
            [shown, *_] = api.get(f"/{collection}").json()["data"]
            assert shown["expires_at"] is None, f"{collection} are kept"
        assert _corpus(api)["expires_at"] is not None

    def test_what_has_expired_is_410_unless_a_live_job_needs_it(
        self, api: httpx.Client, recipe: Json, backend: Backend
    ) -> None:
        needed, idle = recipe["corpus"], _corpus(api, b"texts that nobody\nreads\n")["id"]
        job = api.post("/amalgamations", json=recipe).json()["id"]
        with backend.database.write() as session:
            session.execute(update(Corpus).values(expires_at=now(-1)))
        assert [leftover.name for leftover in sweep(backend)] == [idle]
        gone = api.get(f"/corpora/{idle}")
        assert (gone.status_code, gone.json()["code"]) == (410, "expired")
        assert api.get(f"/corpora/{needed}/preview").status_code == 200
        api.post(f"/amalgamations/{job}/cancel")
        assert api.get(f"/corpora/{needed}").status_code == 410


class TestAuth:
    """In depth: test_owners.py, test_keys.py, tests/e2e/test_keys.py (it starts with a key only)."""

    def test_a_key_opens_its_owners_objects_as_far_as_its_scopes_go(
        self, api: httpx.Client, recipe: Json, backend: Backend
    ) -> None:
        def key(owner: str, *scopes: Scope) -> dict[str, str]:
            return {"Authorization": f"Bearer {keys.create(backend.database, owner, scopes)[1]}"}

        url = f"/corpora/{recipe['corpus']}"
        closed = httpx.get(f"{api.base_url}{url}")
        assert (closed.status_code, closed.headers["www-authenticate"]) == (401, "Bearer")
        assert api.get(url, headers={"Authorization": "Bearer invented"}).status_code == 401
        assert api.get(url, headers=key("stranger", Scope.READ)).status_code == 404
        colleague = key("default", Scope.READ)
        assert api.get(url, headers=colleague).status_code == 200
        refused = api.delete(url, headers=colleague)
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert api.get("/metrics", headers=colleague).status_code == 403
        assert api.get("/metrics", headers=key("default", Scope.ADMIN)).status_code == 200


class TestLimits:
    """In depth: test_limits.py, test_corpora.py, test_models.py, tests/unit/app/ingestion."""

    def test_of_a_body_and_of_a_recipe_state_limit_and_value(
        self, api: httpx.Client, recipe: Json, backend: Backend
    ) -> None:
        large = api.post("/amalgamations", content=b"[" * (5 << 20))
        assert (large.status_code, "4,194,304" in large.json()["detail"]) == (413, True)
        crowd = [add_model(backend, (f"a{number}", f"b{number}")) for number in range(4)]
        [fault] = api.post("/amalgamations", json=recipe | {"teachers": crowd}).json()["errors"]
        assert (fault["pointer"], {"4", "3"} <= set(re.findall(r"\d+", fault["detail"]))) == (
            "/teachers",
            True,
        )
        long = {"texts": ["short", "x" * 20_001]}
        [fault] = api.post("/amalgamations", json=recipe | {"corpus": long}).json()["errors"]
        assert {"20001", "20000"} <= set(re.findall(r"\d+", fault["detail"].replace(",", "")))

    def test_of_the_queue_is_a_429_that_says_when_to_try_again(self, api: httpx.Client, recipe: Json) -> None:
        answers = [api.post("/amalgamations", json=recipe) for _ in range(4)]
        assert [answer.status_code for answer in answers] == [202, 202, 202, 429]
        assert (answers[3].json()["code"], int(answers[3].headers["retry-after"]) > 0) == (
            "too_many_queued_jobs",
            True,
        )
        assert "3 of your jobs are queued" in answers[3].json()["detail"]
