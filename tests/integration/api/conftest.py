"""The API over HTTP, on SQLite and on Postgres, with a real broker and a local Hub."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.domain.status import Status
from app.main import create_app
from app.persistence import amalgamations
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_corpus, add_model
from tests.hub_server import Hub, hub_server, take_for_the_hub


@pytest.fixture
def api(settings: Settings, backend: Backend) -> Iterator[TestClient]:
    """A client of a service over the same database, broker and store as `backend`."""
    with TestClient(create_app(settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def sqlite_settings(tmp_path: Path, sqlite_url: str, redis_url: str) -> Settings:
    """For tests that say nothing about the database."""
    return Settings(
        data_dir=tmp_path,
        store_dir=tmp_path / "store",
        database_url=sqlite_url,
        broker_url=redis_url,
        allowed_hosts=("testserver",),
    )


@pytest.fixture
def sqlite_api(sqlite_settings: Settings) -> Iterator[TestClient]:
    """A client of a service on SQLite."""
    with TestClient(create_app(sqlite_settings), raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local Hub, which `huggingface_hub` takes for the real one."""
    with hub_server() as server:
        take_for_the_hub(server, monkeypatch)
        yield server


@pytest.fixture
def body(backend: Backend) -> dict[str, Any]:
    """A sound body of `POST /amalgamations`."""
    teachers = [add_model(backend, ("refund", "invoice")), add_model(backend, ("late", "lost"))]
    return {"teachers": teachers, "corpus": add_corpus(backend)}


@pytest.fixture
def advance(backend: Backend) -> Callable[..., None]:
    """Bring a queued job to a status, as a worker would."""

    def run(job_id: str, to: Status, **values: Any) -> None:
        with backend.database.write() as session:
            job = amalgamations.claim(session, job_id, worker="test", lease_seconds=300)
            assert job is not None
            if to != Status.RUNNING:
                sources = (Status.RUNNING, Status.CANCELLING)
                changed = amalgamations.change_status(
                    session, job_id, to, f"now {to}", only_from=sources, attempt=job.attempt, values=values
                )
                assert changed is not None
            elif values:
                amalgamations.write_fenced(session, job_id, job.attempt, values)

    return run
