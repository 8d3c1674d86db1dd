from collections.abc import Iterator

import pytest

from app.client import MukaClient
from tests.unit.app.client.scripted_server import ScriptedServer, running


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with running() as scripted:
        yield scripted


@pytest.fixture
def client(server: ScriptedServer) -> Iterator[MukaClient]:
    with MukaClient(server.url, timeout=5) as opened:
        yield opened
