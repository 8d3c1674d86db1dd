"""API keys: from `muka keys create` to the request that they open, on SQLite and Postgres."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr
from sqlalchemy import select, update

from app.domain.access import ANYBODY, DEFAULT_CALLER, Scope
from app.domain.errors import UnauthorizedError
from app.main import create_app
from app.persistence.database import Database
from app.persistence.tables import ApiKey
from app.persistence.time import now
from app.services import keys
from app.services.keys import Keyring
from app.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture
def locked(settings: Settings) -> Settings:
    """Settings of a service that others can reach."""
    return settings.model_copy(update={"host": "0.0.0.0"})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are looked up at every request."""
    monkeypatch.setattr(keys, "REMEMBERED_SECONDS", 0)


def _row(database: Database, key_id: str) -> ApiKey:
    with database.read() as session:
        return session.get_one(ApiKey, key_id)


class TestKey:
    def test_has_256_bits_and_is_kept_nowhere(self, database: Database) -> None:
        made = [keys.create(database, "acme", [Scope.READ])[1] for _ in range(3)]
        assert len(set(made)) == 3
        assert all(re.fullmatch(r"muka_[\w-]{43}", key) for key in made)
        with database.engine.connect() as connection:
            kept = str(connection.execute(select(ApiKey.__table__)).all())
        assert len(re.findall(r"muka_", kept)) == 3, "their first characters"
        assert not [key for key in made if key[keys.SHOWN_CHARS :] in kept]

    def test_opens_as_its_owner_with_its_scopes(self, database: Database, locked: Settings) -> None:
        row, key = keys.create(database, "acme", [Scope.WRITE, Scope.READ, Scope.READ])
        caller = Keyring(database, locked).caller(key)
        assert (caller.api_key_id, caller.owner) == (row.id, "acme")
        assert caller.scopes == {Scope.READ, Scope.WRITE}
        assert not caller.may(Scope.ADMIN)

    def test_admin_may_all(self, database: Database, locked: Settings) -> None:
        _, key = keys.create(database, "acme", [Scope.ADMIN])
        caller = Keyring(database, locked).caller(key)
        assert all(caller.may(scope) for scope in Scope)

    def test_opens_nothing_when_a_character_is_wrong(self, database: Database, locked: Settings) -> None:
        _, key = keys.create(database, "acme", [Scope.READ])
        for other in ("", key[:-1], key + "a", key.swapcase(), key[:-1] + "é", "\0"):
            with pytest.raises(UnauthorizedError):
                Keyring(database, locked).caller(other)

    @pytest.mark.usefixtures("impatient")
    def test_tells_when_it_was_used_to_the_minute(self, database: Database, locked: Settings) -> None:
        row, key = keys.create(database, "acme", [Scope.READ])
        keyring = Keyring(database, locked)
        assert _row(database, row.id).last_used_at is None
        keyring.caller(key)
        first = _row(database, row.id).last_used_at
        keyring.caller(key)
        assert _row(database, row.id).last_used_at == first
        with database.write() as session:
            session.execute(update(ApiKey).values(last_used_at=now(-61)))
        keyring.caller(key)
        last = _row(database, row.id).last_used_at
        assert first is not None
        assert last is not None
        assert last >= first


class TestRevocation:
    def test_closes_at_once_where_the_key_is_not_remembered(
        self, database: Database, locked: Settings
    ) -> None:
        row, key = keys.create(database, "acme", [Scope.READ])
        other_row, other = keys.create(database, "acme", [Scope.READ])
        revoked_at = keys.revoke(database, row.id).revoked_at
        assert keys.revoke(database, row.id).revoked_at == revoked_at is not None
        with pytest.raises(UnauthorizedError):
            Keyring(database, locked).caller(key)
        assert Keyring(database, locked).caller(other).api_key_id == other_row.id

    def test_closes_after_seconds_where_it_is(self, database: Database, locked: Settings) -> None:
        row, key = keys.create(database, "acme", [Scope.READ])
        at = 0.0
        keyring = Keyring(database, locked, clock=lambda: at)
        known = keyring.caller(key)
        keys.revoke(database, row.id)
        assert keyring.remembered(key) == known
        at += keys.REMEMBERED_SECONDS
        assert keyring.remembered(key) is None
        with pytest.raises(UnauthorizedError):
            keyring.caller(key)


class TestDoor:
    """When a service asks for keys at all."""

    @pytest.mark.usefixtures("impatient")
    def test_is_open_on_loopback_until_the_first_key_is_made(
        self, database: Database, settings: Settings
    ) -> None:
        keyring = Keyring(database, settings)
        assert keyring.caller("") == keyring.caller("whatever") == ANYBODY
        row, key = keys.create(database, "acme", [Scope.READ])
        with pytest.raises(UnauthorizedError):
            keyring.caller("")
        assert keyring.caller(key).owner == "acme"
        keys.revoke(database, row.id)
        with pytest.raises(UnauthorizedError):  # revoking the last key must not let everybody in
            keyring.caller("")

    def test_is_never_open_to_the_network(self, database: Database, locked: Settings) -> None:
        with pytest.raises(UnauthorizedError):
            Keyring(database, locked).caller("")

    def test_takes_the_settings_key_as_owner_default(self, database: Database, locked: Settings) -> None:
        given = locked.model_copy(update={"api_key": SecretStr("of-the-setting")})
        assert Keyring(database, given).caller("of-the-setting") == DEFAULT_CALLER
        with pytest.raises(UnauthorizedError):
            Keyring(database, given).caller("")
        _, key = keys.create(database, "acme", [Scope.READ])
        assert Keyring(database, given).caller(key).owner == "acme"

    def test_does_not_remember_what_opened_nothing(self, database: Database, settings: Settings) -> None:
        keyring = Keyring(database, settings)
        for number in range(100):
            keyring.caller(f"invented-{number}")
        assert len(keyring._remembered) == 0


@pytest.mark.usefixtures("impatient")
class TestCommands:
    @pytest.fixture
    def environment(self, settings: Settings) -> dict[str, str]:
        return {"MUKA_DATABASE_URL": str(settings.database_url), "MUKA_DATA_DIR": str(settings.data_dir)}

    @pytest.fixture
    def api(self, locked: Settings) -> Iterator[TestClient]:
        with TestClient(create_app(locked)) as client:
            yield client

    def test_make_show_and_revoke_a_key(self, api: TestClient, environment: dict[str, str]) -> None:
        made = _muka(environment, "create", "--owner", "acme", "--scope", "read", "--name", "dashboard")
        key, key_id = made.stdout.strip(), made.stderr.split()[0]
        headers = {"Authorization": f"Bearer {key}"}
        assert api.get("/students", headers=headers).status_code == 200
        assert api.post("/amalgamations", headers=headers, json={}).status_code == 403
        listed = _muka(environment, "list").stdout
        assert all(word in listed for word in (key_id, "acme", "read", "dashboard", key[: keys.SHOWN_CHARS]))
        assert key not in listed
        assert key_id in _muka(environment, "revoke", key_id).stdout
        assert api.get("/students", headers=headers).status_code == 401

    def test_refuse_what_makes_no_sense(self, environment: dict[str, str]) -> None:
        for arguments, cure in {
            ("revoke", "key-1"): "muka keys list",
            ("create", "--owner", " "): "1 to 100",
            ("create", "--owner", "acme", "--scope", "root"): "admin",
        }.items():
            refused = _muka(environment, *arguments, succeeds=False)
            assert cure in refused.stderr
            assert "Traceback" not in refused.stderr


def test_the_first_key_can_be_made_before_anything_else(tmp_path: Path) -> None:
    made = _muka({"MUKA_DATA_DIR": str(tmp_path / "new")}, "create", "--owner", "acme")
    assert made.stdout.startswith("muka_")


def _muka(
    environment: dict[str, str], *arguments: str, succeeds: bool = True
) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", "keys", *arguments],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode == 0) == succeeds, done.stderr
    return done
