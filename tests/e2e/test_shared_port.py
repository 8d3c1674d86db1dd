"""Processes of the API that share a port: each has its share of the connections, and any may go."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from app.persistence import migrate
from tests.e2e.service import Muka, muka

CONNECTIONS = 64
"""So many that one of two processes gets none of them once in 10^19."""


@pytest.fixture
def environment(tmp_path: Path, postgres_url: str, redis_url: str) -> dict[str, str]:
    migrate.upgrade(postgres_url)
    return {"MUKA_DATABASE_URL": postgres_url, "MUKA_BROKER_URL": redis_url, "MUKA_DATA_DIR": str(tmp_path)}


@pytest.fixture
def two(environment: dict[str, str], tmp_path: Path) -> Iterator[tuple[Muka, Muka]]:
    with ExitStack() as stack:
        first = stack.enter_context(muka(["serve", "--reuse-port", "--port", "0"], tmp_path, environment))
        command = ["serve", "--reuse-port", "--port", _port(first)]
        second = stack.enter_context(muka(command, tmp_path, environment))
        assert second.url == first.url
        yield first, second


def _port(service: Muka) -> str:
    return service.url.rpartition(":")[2]


async def _answered(url: str, seconds: float, then: signal.Signals, service: Muka) -> tuple[int, int]:
    """So many requests, each over a connection of its own, are answered before and after that signal."""
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        headers = {"Connection": "close"}
        asked = [asyncio.create_task(client.get("/healthz", headers=headers)) for _ in range(CONNECTIONS)]
        done, waiting = await asyncio.wait(asked, timeout=seconds)
        service.process.send_signal(then)
        later = await asyncio.gather(*waiting)
    assert all(task.result().status_code == 200 for task in done)
    assert all(answer.status_code == 200 for answer in later)
    return len(done), len(later)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the last that came has them all")
def test_each_has_its_share_of_the_connections(two: tuple[Muka, Muka]) -> None:
    frozen, _ = two
    frozen.process.send_signal(signal.SIGSTOP)
    at_once, later = asyncio.run(_answered(frozen.url, 5, signal.SIGCONT, frozen))
    assert at_once > 0, "of the process that runs"
    assert later > 0, "of the one that was frozen"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the last that came has them all")
def test_when_one_stops_the_others_have_all(two: tuple[Muka, Muka]) -> None:
    first, second = two
    first.process.send_signal(signal.SIGTERM)
    assert first.process.wait(30) == 0
    for _ in range(CONNECTIONS):
        assert httpx.get(f"{second.url}/healthz").status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the last that came has them all")
def test_one_that_cannot_start_takes_no_connection_from_the_others(
    two: tuple[Muka, Muka], environment: dict[str, str], tmp_path: Path, empty_postgres_url: Callable[[], str]
) -> None:
    other = environment | {"MUKA_DATABASE_URL": empty_postgres_url()}
    with muka(["serve", "--reuse-port", "--port", _port(two[0])], tmp_path, other) as third:
        while third.process.poll() is None:
            assert httpx.get(f"{two[0].url}/healthz").status_code == 200
        assert "run `muka migrate`" in third.output()


def test_the_embedded_mode_shares_no_port(tmp_path: Path) -> None:
    with muka(["serve", "--reuse-port", "--port", "0"], tmp_path, {"MUKA_DATA_DIR": str(tmp_path)}) as alone:
        assert alone.process.wait(30) == 2
        assert "MUKA_BROKER_URL" in alone.output()


def test_who_does_not_say_so_is_refused(
    two: tuple[Muka, Muka], environment: dict[str, str], tmp_path: Path
) -> None:
    with muka(["serve", "--port", _port(two[0])], tmp_path, environment) as third:
        assert third.process.wait(30) == 1
        assert f"cannot listen on 127.0.0.1, port {_port(two[0])}" in third.output()
