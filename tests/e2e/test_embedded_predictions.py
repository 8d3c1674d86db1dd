"""The prediction worker that `muka serve` brings along: there when it is asked, and only then."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.services.backend import Backend
from app.settings import Settings
from tests.e2e.service import Muka, descendants, is_alive, serving
from tests.prediction_worker import LABELS, keys_left, publish
from tests.servers import wait_until

PREDICTOR = "worker.predictor"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Muka]:
    with serving(tmp_path_factory.mktemp("muka") / "data", MUKA_PREDICTION_IDLE_SECONDS="10") as running:
        yield running


@pytest.fixture(scope="module")
def student(service: Muka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    backend = Backend.from_settings(Settings(data_dir=service.log.parent))
    yield publish(backend, tmp_path_factory.mktemp("student"))
    backend.close()


def ask(service: Muka, student: str) -> dict[str, Any]:
    url = f"{service.url}/students/{student}/predictions"
    answer = httpx.post(url, json={"texts": ["cancel the hotel in rome", "hello"]}, timeout=60)
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = answer.json()
    return said


def predictors(service: Muka) -> list[int]:
    return [pid for pid, line in descendants(service.process.pid) if PREDICTOR in line]


def broker_url(service: Muka) -> str:
    line = next(line for _, line in descendants(service.process.pid) if "broker.sock" in line)
    found = re.search(r"unixsocket:(\S+)", line)
    assert found
    return f"unix://{found[1]}"


def test_it_starts_when_it_is_asked_and_ends_when_it_is_not(service: Muka, student: str) -> None:
    service.child("celery.*worker")
    wait_until(lambda: predictors(service) == [], "nobody asks")
    first = ask(service, student)
    assert [answer["label"] in LABELS for answer in first["data"]] == [True, True]
    (pid,) = predictors(service)
    assert ask(service, student) == first
    assert predictors(service) == [pid]
    assert keys_left(broker_url(service)) == []
    wait_until(lambda: not is_alive(pid), "it ends by itself")
    assert ask(service, student) == first
    assert "the prediction worker ended" not in service.output()


def test_killed_it_is_there_for_the_next_request(service: Muka, student: str) -> None:
    before = ask(service, student)
    (pid,) = predictors(service)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(pid), "it is gone")
    assert ask(service, student) == before
    assert predictors(service) != [pid]
    assert keys_left(broker_url(service)) == []


def test_a_broker_that_is_killed_does_not_end_predictions(service: Muka, student: str) -> None:
    before = ask(service, student)
    os.kill(service.child("broker.sock"), signal.SIGKILL)

    def asked_again() -> bool:
        url = f"{service.url}/students/{student}/predictions"
        answer = httpx.post(url, json={"texts": ["cancel the hotel in rome", "hello"]}, timeout=60)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and answer.json() == before

    wait_until(asked_again, "predictions are answered again")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_service(tmp_path: Path, how: signal.Signals) -> None:
    with serving(tmp_path / "data") as service:
        backend = Backend.from_settings(Settings(data_dir=tmp_path / "data"))
        ask(service, publish(backend, tmp_path / "student"))
        backend.close()
        (pid,) = predictors(service)
        service.process.send_signal(how)
        service.process.wait(20)
        wait_until(lambda: not is_alive(pid), "the prediction worker is gone", seconds=30)
