"""What tests of several parts share: a worker's bench, and a receiver of webhooks."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from app.persistence.database import Database
from app.settings import Settings
from app.storage import ArtifactStore
from tests.unit.app.client.scripted_server import Reply, ScriptedServer, running

if TYPE_CHECKING:
    from tests.bench import Bench


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The tiny teachers of a bench."""
    from tests.bench import teacher_folders  # noqa: PLC0415  (only tests that need torch load it)

    return teacher_folders(tmp_path_factory.mktemp("teachers"))


@pytest.fixture
def bench(database: Database, store: ArtifactStore, folders: list[Path], tmp_path: Path) -> "Bench":
    """A worker without a queue, over the database and the store of this test."""
    from tests.bench import Bench  # noqa: PLC0415

    return Bench.at(Settings(data_dir=tmp_path), database, store, folders)


@pytest.fixture
def receiver() -> Iterator[ScriptedServer]:
    """Takes every message."""
    with running() as server:
        server.on("POST", "/.*", Reply(204))
        yield server
