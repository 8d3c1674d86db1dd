"""Webhooks over HTTP, and the messages that a whole service sends."""

from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from typing import Any

import pytest
from fastapi.testclient import TestClient
from jsonschema import Draft202012Validator
from sqlalchemy import select
from standardwebhooks import Webhook as Receiver

from app.main import create_app
from app.persistence.tables import Webhook, WebhookDelivery
from app.services import webhooks
from app.services.backend import Backend
from app.services.webhooks import MAX_WEBHOOKS
from app.settings import Settings
from tests.api_objects import add_webhook
from tests.jobs import add_job
from tests.servers import wait_until
from tests.unit.app.client.scripted_server import Reply, ScriptedServer

EVENTS = ["amalgamation.cancelled", "amalgamation.failed", "amalgamation.started", "amalgamation.succeeded"]
LOOPBACK = (ip_network("127.0.0.0/8"),)
REFUSED_URLS = [
    "http://example.com/",
    "ftp://example.com/",
    "example.com",
    "/hook",
    "https://",
    "https://user:word@example.com/",
    "https://example.com:0/",
    "https://example.com:99999/",
    "https://localhost/",
    "https://127.0.0.1:5432/",
    "https://2130706433/",
    "https://0x7f.0.0.1/",
    "https://[::1]/",
    "https://[::ffff:169.254.169.254]/latest/meta-data",
    "https://169.254.169.254/latest/meta-data",
    "https://10.0.0.1/",
    "https://[fd00::1]/",
    "https://nowhere.invalid/",
    "https://a\u0000b/",
    "https://" + "a" * 300 + ".com/",
]
REFUSED_BODIES: list[tuple[dict[str, Any], str]] = [
    ({"url": "https://1.1.1.1/", "events": []}, "/events"),
    ({"url": "https://1.1.1.1/", "events": ["amalgamation.exploded"]}, "/events/0"),
    ({"url": "https://1.1.1.1/", "secret": "mine"}, "/secret"),
    ({"url": "https://1.1.1.1/" + "a" * 2000}, "/url"),
    ({"url": "https://1.1.1.1/", "description": "nul\u0000"}, "/description"),
    ({"events": EVENTS}, "/url"),
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"webhook_allowed_networks": LOOPBACK})


def _create(api: TestClient, url: str, **body: Any) -> dict[str, Any]:
    answer = api.post("/webhooks", json={"url": url, **body})
    assert answer.status_code == 201, answer.text
    created: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/webhooks/{created['id']}"
    return created


def _settled(api: TestClient, webhook_id: str, at_least: int = 1) -> list[dict[str, Any]]:
    def look() -> list[dict[str, Any]] | None:
        log: list[dict[str, Any]] = api.get(f"/webhooks/{webhook_id}/deliveries?order=asc").json()["data"]
        done = len(log) >= at_least and all(each["status"] != "pending" for each in log)
        return log if done else None

    return wait_until(look, "the deliveries are settled")


class TestLifecycle:
    def test_the_secret_is_shown_once(self, api: TestClient, receiver: ScriptedServer) -> None:
        created = _create(api, receiver.url, description="support")
        secret = created.pop("secret")
        assert secret.startswith("whsec_")
        assert created == api.get(f"/webhooks/{created['id']}").json()
        assert (created["events"], created["enabled"], created["description"]) == (EVENTS, True, "support")
        listed = api.get("/webhooks")
        assert [each["id"] for each in listed.json()["data"]] == [created["id"]]
        rotated = api.post(f"/webhooks/{created['id']}/rotate")
        assert rotated.headers["cache-control"] == "no-store"
        assert rotated.json()["secret"] not in {"", secret}
        assert rotated.json()["previous_secret_until"] is not None
        for answer in (api.get(f"/webhooks/{created['id']}"), listed, api.get("/webhooks")):
            assert "whsec_" not in answer.text

    def test_a_replaced_secret_is_not_replayed_any_more(
        self, api: TestClient, receiver: ScriptedServer
    ) -> None:
        once = {"Idempotency-Key": "order-7"}
        body = {"url": receiver.url}
        created = api.post("/webhooks", json=body, headers=once).json()
        assert api.post("/webhooks", json=body, headers=once).json() == created
        api.post(f"/webhooks/{created['id']}/rotate")
        again = api.post("/webhooks", json=body, headers=once)
        assert created["secret"] not in again.text
        api.delete(f"/webhooks/{again.json()['id']}")
        assert again.json()["secret"] not in api.post("/webhooks", json=body, headers=once).text

    def test_a_repeated_rotation_makes_one_secret_and_shows_it_again(
        self, api: TestClient, backend: Backend
    ) -> None:
        webhook = add_webhook(backend)
        path, once = f"/webhooks/{webhook.id}/rotate", {"Idempotency-Key": "turn-1"}
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: api.post(path, headers=once), range(4)))
        while in_flight := [each for each in answers if each.status_code == 409]:
            answers.remove(in_flight[0])
            answers.append(api.post(path, headers=once))
        assert {answer.status_code for answer in answers} == {200}
        (secret,) = {answer.json()["secret"] for answer in answers}
        assert sum("idempotency-replayed" in answer.headers for answer in answers) == 3
        assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
        row = webhooks.get(backend, webhook.owner, webhook.id)
        assert (row.secret, row.previous_secret) == (secret, webhook.secret), "the receiver's signs as well"
        assert api.post(path).json()["secret"] != secret
        assert secret not in api.post(path, headers=once).text, "it was replaced"

    def test_a_rotation_s_key_is_for_one_webhook(self, api: TestClient, backend: Backend) -> None:
        once = {"Idempotency-Key": "turn-2"}
        one, two = (api.post(f"/webhooks/{add_webhook(backend).id}/rotate", headers=once) for _ in range(2))
        assert one.json()["secret"] != two.json()["secret"]
        assert "idempotency-replayed" not in two.headers

    def test_what_is_deleted_is_gone(self, api: TestClient, backend: Backend) -> None:
        webhook = add_webhook(backend)
        assert api.delete(f"/webhooks/{webhook.id}").status_code == 204
        for method, path in [
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/test"),
            ("POST", "/rotate"),
            ("GET", "/deliveries"),
        ]:
            answer = api.request(method, f"/webhooks/{webhook.id}{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), method

    def test_lists_have_pages(self, api: TestClient, backend: Backend) -> None:
        ids = sorted((add_webhook(backend).id for _ in range(3)), reverse=True)
        first = api.get("/webhooks?limit=2")
        assert [each["id"] for each in first.json()["data"]] == ids[:2]
        rest = api.get(first.links["next"]["url"])
        assert [each["id"] for each in rest.json()["data"]] == ids[2:]

    def test_a_repeated_post_makes_one_webhook_and_shows_its_secret_again(
        self, api: TestClient, receiver: ScriptedServer
    ) -> None:
        once, body = {"Idempotency-Key": "hook-1"}, {"url": receiver.url}
        first, again = (api.post("/webhooks", json=body, headers=once) for _ in range(2))
        assert first.json() == again.json()
        assert again.headers["idempotency-replayed"] == "true"
        other = api.post("/webhooks", json={"url": f"{receiver.url}/other"}, headers=once)
        assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
        assert len(api.get("/webhooks").json()["data"]) == 1

    def test_an_owner_has_no_more_than_the_limit(
        self, api: TestClient, backend: Backend, receiver: ScriptedServer
    ) -> None:
        for _ in range(MAX_WEBHOOKS):
            add_webhook(backend)
        answer = api.post("/webhooks", json={"url": receiver.url})
        assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")
        assert str(MAX_WEBHOOKS) in answer.json()["detail"]


class TestRefusals:
    """Without a private network that is allowed; nothing is stored."""

    def test_of_urls_inside_or_of_no_use(self, sqlite_api: TestClient) -> None:
        for url in REFUSED_URLS:
            answer = sqlite_api.post("/webhooks", json={"url": url})
            assert answer.status_code == 422, url
            (fault,) = answer.json()["errors"]
            assert (fault["pointer"], fault["code"]) == ("/url", "webhook_url_refused"), url
        assert sqlite_api.get("/webhooks").json()["data"] == []

    def test_of_bodies_against_the_contract(self, sqlite_api: TestClient) -> None:
        for body, pointer in REFUSED_BODIES:
            answer = sqlite_api.post("/webhooks", json=body)
            assert answer.status_code == 422, body
            assert [each["pointer"] for each in answer.json()["errors"]] == [pointer], body

    def test_a_public_address_is_taken(self, sqlite_api: TestClient) -> None:
        created = _create(sqlite_api, "https://1.1.1.1/Hook?team=Ä")
        assert created["url"] == "https://1.1.1.1/Hook?team=%C3%84"


class TestService:
    """A service with its own deliverer."""

    def test_a_test_tells_what_came_of_it(self, api: TestClient, receiver: ScriptedServer) -> None:
        webhook = _create(api, f"{receiver.url}/hook")
        answer = api.post(f"/webhooks/{webhook['id']}/test")
        assert (answer.status_code, answer.json()["status"]) == (202, "pending")
        (delivery,) = _settled(api, webhook["id"])
        assert (delivery["id"], delivery["status"]) == (answer.json()["id"], "succeeded")
        assert delivery["attempts"][0]["status_code"] == 204
        (request,) = receiver.requests
        Receiver(webhook["secret"]).verify(request.body, dict(request.headers))

    def test_a_job_that_is_cancelled_is_told_as_the_document_says(
        self, api: TestClient, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = _create(api, receiver.url)
        job_id = add_job(backend.database)
        assert api.post(f"/amalgamations/{job_id}/cancel").status_code == 200
        (delivery,) = _settled(api, webhook["id"])
        assert delivery["amalgamation_id"] == job_id
        (request,) = receiver.requests
        message = Receiver(webhook["secret"]).verify(request.body, dict(request.headers))
        document = api.get("/openapi.json").json()
        told = document["webhooks"][message["type"]]["post"]
        schema = told["requestBody"]["content"]["application/json"]["schema"]
        whole = schema | {"components": document["components"]}
        assert not list(Draft202012Validator(whole).iter_errors(message))
        named = {each["name"] for each in told["parameters"]}
        assert named == {"webhook-id", "webhook-timestamp", "webhook-signature"}
        assert named <= {name.lower() for name in request.headers}

    def test_the_log_is_filtered_by_status(self, api: TestClient, receiver: ScriptedServer) -> None:
        webhook = _create(api, receiver.url)
        receiver.on("POST", "/", Reply(500), Reply(204))
        for count in (1, 2):
            api.post(f"/webhooks/{webhook['id']}/test")
            _settled(api, webhook["id"], count)
        url = f"/webhooks/{webhook['id']}/deliveries"
        for status, found in {"failed": 1, "succeeded": 1, "pending": 0}.items():
            data = api.get(f"{url}?status={status}").json()["data"]
            assert [each["status"] for each in data] == [status] * found

    def test_no_secret_is_in_the_log(
        self, api: TestClient, backend: Backend, receiver: ScriptedServer
    ) -> None:
        webhook = _create(api, receiver.url)
        api.post(f"/webhooks/{webhook['id']}/test")
        _settled(api, webhook["id"])
        assert "whsec_" not in api.get(f"/webhooks/{webhook['id']}/deliveries").text
        with backend.database.read() as session:
            assert session.scalars(select(Webhook.secret)).one() == webhook["secret"]
            assert "whsec_" not in session.scalars(select(WebhookDelivery.body)).one()


def test_without_a_setting_private_networks_are_closed(sqlite_settings: Settings) -> None:
    assert sqlite_settings.webhook_allowed_networks == ()
    assert Settings.model_validate(
        {"webhook_allowed_networks": "10.0.0.0/8, fd00::/8"}
    ).webhook_allowed_networks == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
    )
    with TestClient(create_app(sqlite_settings)) as api:
        answer = api.post("/webhooks", json={"url": "https://10.0.0.1/"})
    assert "MUKA_WEBHOOK_ALLOWED_NETWORKS" in answer.json()["detail"]
