"""A service that asks for no key is there for its machine alone, whatever its browsers are made to send."""

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.domain.access import Scope
from app.main import create_app
from app.persistence.database import Database
from app.services import keys
from app.settings import Settings
from tests.live_service import live_service

OWN_NAMES = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "127.0.0.1:8000",
    "127.7.7.7",
    "[::1]",
    "[::1]:8000",
]
STRANGE_NAMES = [
    "evil.example",
    "evil.example:8000",
    "127.0.0.1.evil.example",
    "10.0.0.1",
    "[fd00::1]:8000",
    "[",
]


@pytest.fixture
def open_settings(sqlite_settings: Settings) -> Settings:
    return sqlite_settings.model_copy(update={"allowed_hosts": ()})


def _refusal(answer: httpx.Response) -> str:
    assert (answer.status_code, answer.json()["code"]) == (403, "host_not_allowed")
    assert "www-authenticate" not in answer.headers, "no other key would help"
    return str(answer.json()["detail"])


def test_it_answers_to_names_of_the_machine(open_settings: Settings) -> None:
    with TestClient(create_app(open_settings)) as api:
        for name in OWN_NAMES:
            assert api.get("/corpora", headers={"Host": name}).status_code == 200, name
        for name in STRANGE_NAMES:
            told = _refusal(api.get("/corpora", headers={"Host": name}))
            assert "muka keys create" in told
            assert "MUKA_ALLOWED_HOSTS" in told
        assert api.get("/corpora", headers={"Host": "evil.example"}).status_code == 403, "nor the second time"


def test_a_key_that_nobody_has_does_not_help(open_settings: Settings) -> None:
    with TestClient(create_app(open_settings)) as api:
        _refusal(api.get("/corpora", headers={"Host": "evil.example", "Authorization": "Bearer made-up"}))


def test_a_page_of_another_site_may_not_send_anything(open_settings: Settings) -> None:
    """A browser sends it without asking first: the type of the body is one that forms have."""
    with live_service(open_settings) as api:
        for origin in ("https://evil.example", "http://127.0.0.1.evil.example:80", "null"):
            headers = {"Origin": origin, "Content-Type": "text/plain"}
            assert "Origin" in _refusal(api.post("/corpora?format=txt", content=b"poison\n", headers=headers))
        assert api.get("/corpora").json()["data"] == []
        for origin in ("http://localhost:3000", "http://127.0.0.1:8000", "http://[::1]:8000"):
            assert api.get("/corpora", headers={"Origin": origin}).status_code == 200


def test_further_names_can_be_allowed(open_settings: Settings) -> None:
    named = open_settings.model_copy(update={"allowed_hosts": ("muka.localhost", "desk")})
    with TestClient(create_app(named)) as api:
        for name in ("muka.localhost:8000", "Desk"):
            headers = {"Host": name, "Origin": f"http://{name}"}
            assert api.get("/corpora", headers=headers).status_code == 200
        _refusal(api.get("/corpora", headers={"Host": "desk.evil.example"}))


def test_with_a_key_any_name_will_do(open_settings: Settings, sqlite_url: str) -> None:
    """As behind a proxy that passes on the name by which it was called."""
    stranger = {"Host": "muka.example.com", "Origin": "https://elsewhere.example"}
    locked = open_settings.model_copy(update={"api_key": SecretStr("right")})
    with TestClient(create_app(locked)) as api:
        assert api.get("/corpora", headers=stranger | {"Authorization": "Bearer right"}).status_code == 200
        assert api.get("/corpora", headers=stranger).status_code == 401
    database = Database(sqlite_url)
    _, key = keys.create(database, "acme", [Scope.READ])
    database.close()
    with TestClient(create_app(open_settings)) as api:
        assert api.get("/corpora", headers=stranger | {"Authorization": f"Bearer {key}"}).status_code == 200
        assert api.get("/corpora", headers=stranger).status_code == 401


def test_the_hub_door_is_guarded_as_well_and_health_is_not(open_settings: Settings) -> None:
    with TestClient(create_app(open_settings)) as api:
        answer = api.get("/hub/api/models/students/x", headers={"Host": "evil.example"})
        assert answer.status_code == 403
        assert "evil.example" in answer.headers["x-error-message"]
        assert api.get("/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200, (
            "probes ask by address"
        )


def test_the_setting_is_a_list_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUKA_ALLOWED_HOSTS", "muka.localhost, desk")
    assert Settings().allowed_hosts == ("muka.localhost", "desk")
