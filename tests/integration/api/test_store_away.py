"""A service whose store is not mounted does not start, or says so while it runs, and writes nothing there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from app.persistence.database import Database
from app.storage import ArtifactStore
from tests.jobs import add_corpus
from tests.tiny_models import TEXTS

ROOT = Path(__file__).parents[3]


def _upload(api: TestClient, name: str) -> tuple[int, str | None]:
    answer = api.post("/corpora", files={"file": (name, "\n".join([*TEXTS, name]))})
    return answer.status_code, answer.json().get("code")


def _ready(api: TestClient) -> int:
    return api.get("/readyz").status_code


def test_it_goes_away_and_comes_back(sqlite_api: TestClient, tmp_path: Path) -> None:
    store, elsewhere = tmp_path / "store", tmp_path / "elsewhere"
    assert _upload(sqlite_api, "first.txt") == (201, None)
    (corpus,) = sqlite_api.get("/corpora").json()["data"]
    store.rename(elsewhere)
    store.mkdir()
    assert _upload(sqlite_api, "second.txt") == (503, "storage_error")
    preview = sqlite_api.get(f"/corpora/{corpus['id']}/preview")
    assert (preview.status_code, preview.json()["code"]) == (503, "storage_error")
    assert str(tmp_path) not in preview.text
    assert _ready(sqlite_api) == 503
    assert list(store.iterdir()) == []
    store.rmdir()
    elsewhere.rename(store)
    assert _upload(sqlite_api, "second.txt") == (201, None)
    assert sqlite_api.get(f"/corpora/{corpus['id']}/preview").status_code == 200
    assert _ready(sqlite_api) == 200


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["worker"]], ids=["serve", "worker"])
@pytest.mark.parametrize("there", [True, False], ids=["a mount point", "no folder"])
def test_nothing_starts_without_it(
    sqlite_url: str, store: ArtifactStore, tmp_path: Path, command: list[str], there: bool
) -> None:
    database = Database(sqlite_url)
    add_corpus(database, store, TEXTS)
    database.close()
    place = tmp_path / "mounted"
    if there:
        place.mkdir()
    own = {"DATABASE_URL": sqlite_url, "BROKER_URL": "redis://127.0.0.1:1/0", "STORE_DIR": str(place)}
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *command],
        env=os.environ | {f"MUKA_{name}": value for name, value in own.items()},
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "is it mounted?" in done.stderr
    assert f"MUKA_STORE_DIR is {place}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.glob("mounted*/**/*")) == []
