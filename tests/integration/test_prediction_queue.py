"""What happens to predictions that nobody answers: told clearly, never computed late, nothing left behind."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import redis

from app.prediction_queue import WAITING, PredictionInbox, Taken
from app.services.backend import Backend
from app.settings import Settings
from tests.api_objects import add_student
from tests.live_service import api_process, live_service
from tests.prediction_worker import keys_left, prediction_worker, publish
from tests.servers import redis_server, wait_until


@pytest.fixture
def settings(tmp_path: Path, sqlite_url: str, redis_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path,
        store_dir=tmp_path / "store",
        database_url=sqlite_url,
        broker_url=redis_url,
        prediction_timeout_seconds=1,
        max_waiting_predictions=3,
    )


@pytest.fixture
def backend(settings: Settings) -> Iterator[Backend]:
    opened = Backend.from_settings(settings)
    yield opened
    opened.close()


@pytest.fixture
def student(backend: Backend) -> str:
    return add_student(backend)


@pytest.fixture
def http(settings: Settings) -> Iterator[httpx.Client]:
    with live_service(settings) as client:
        yield client


@pytest.fixture
def inbox(redis_url: str) -> Iterator[PredictionInbox]:
    opened = PredictionInbox(redis_url)
    yield opened
    opened.close()


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def ask(http: httpx.Client, student: str) -> httpx.Response:
    return http.post(f"/students/{student}/predictions", json={"texts": ["hello"]})


def taken(inbox: PredictionInbox) -> Taken:
    return wait_until(lambda: inbox.take(1), "a question waits")


def waiting(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as client:
        return int(client.llen(WAITING))


def test_without_a_worker_it_says_how_to_start_one(http: httpx.Client, student: str, redis_url: str) -> None:
    answer = ask(http, student)
    assert (answer.status_code, answer.json()["code"]) == (504, "prediction_timeout")
    assert "within 1 s" in answer.json()["detail"]
    assert "`muka worker --queue predictions`" in answer.json()["detail"]
    assert answer.headers["retry-after"]
    assert keys_left(redis_url) == []


def test_a_worker_that_takes_it_and_is_lost_is_told_apart(
    http: httpx.Client, student: str, redis_url: str, inbox: PredictionInbox, clients: ThreadPoolExecutor
) -> None:
    asked = clients.submit(ask, http, student)
    lost = taken(inbox)
    answer = asked.result()
    assert (answer.status_code, answer.json()["code"]) == (504, "prediction_timeout")
    assert "a prediction worker took the request" in answer.json()["detail"]
    inbox.answer(lost, b"{}")  # too late, and told to nobody
    inbox.fail(lost, "nobody listens")
    assert keys_left(redis_url) == []


def test_what_a_worker_says_is_passed_on(
    http: httpx.Client, student: str, redis_url: str, inbox: PredictionInbox, clients: ThreadPoolExecutor
) -> None:
    answered, failed = clients.submit(ask, http, student), clients.submit(ask, http, student)
    inbox.answer(taken(inbox), b'{"said": "yes"}')
    inbox.fail(taken(inbox), "it is too large; use less of it \N{EURO SIGN}")
    answers = sorted([answered.result(), failed.result()], key=lambda answer: answer.status_code)
    assert (answers[0].status_code, answers[0].json()) == (200, {"said": "yes"})
    assert (answers[1].status_code, answers[1].json()["code"]) == (503, "prediction_failed")
    assert answers[1].json()["detail"] == "it is too large; use less of it \N{EURO SIGN}"
    assert keys_left(redis_url) == []


def test_more_than_may_wait_are_refused_at_once(
    http: httpx.Client, student: str, redis_url: str, clients: ThreadPoolExecutor
) -> None:
    patient: list[Future[httpx.Response]] = []
    for number in range(1, 4):
        patient.append(clients.submit(ask, http, student))
        wait_until(lambda n=number: waiting(redis_url) >= n, "it waits")
    refused = ask(http, student)
    assert (refused.status_code, refused.json()["code"]) == (503, "predictions_busy")
    assert "3 prediction requests" in refused.json()["detail"]
    assert refused.headers["retry-after"]
    assert not any(each.done() for each in patient)
    assert {each.result().status_code for each in patient} == {504}
    assert keys_left(redis_url) == []


def test_what_nobody_waits_for_any_more_is_not_computed(
    settings: Settings, backend: Backend, tmp_path: Path, redis_url: str
) -> None:
    """A frozen worker takes up its work again, and finds that the API has withdrawn the request."""
    student = publish(backend, tmp_path / "model")
    with prediction_worker(settings, tmp_path) as worker, live_service(settings) as http:
        assert wait_until(lambda: ask(http, student).status_code == 200, "it is warm")
        os.kill(worker.process.pid, signal.SIGSTOP)
        late = ask(http, student)
        assert late.status_code == 504
        assert keys_left(redis_url) == []
        os.kill(worker.process.pid, signal.SIGCONT)
        assert ask(http, student).status_code == 200
    assert keys_left(redis_url) == []


def test_an_api_process_that_is_killed_leaves_nothing_behind(
    settings: Settings, student: str, redis_url: str, clients: ThreadPoolExecutor
) -> None:
    with api_process(settings, MUKA_PREDICTION_TIMEOUT_SECONDS="1") as (port, pid):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
            asked = clients.submit(ask, http, student)
            wait_until(lambda: waiting(redis_url), "it waits")
            os.kill(pid, signal.SIGKILL)
            assert isinstance(asked.exception(), httpx.TransportError)
        wait_until(lambda: not keys_left(redis_url), "it vanishes by itself")


class TestWithoutABroker:
    def test_none_is_named(self, settings: Settings, student: str) -> None:
        with live_service(settings.model_copy(update={"broker_url": None})) as http:
            answer = ask(http, student)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "MUKA_BROKER_URL" in answer.json()["detail"]

    def test_it_does_not_listen(self, settings: Settings, student: str) -> None:
        with live_service(settings.model_copy(update={"broker_url": "redis://127.0.0.1:1/0"})) as http:
            answer = ask(http, student)
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")

    def test_it_comes_back(self, settings: Settings, student: str) -> None:
        """Connections of the pool died with it; the next request makes a new one."""
        with redis_server() as url:
            own = settings.model_copy(update={"broker_url": url})
            with live_service(own) as http, redis.Redis.from_url(url) as client:
                assert ask(http, student).status_code == 504
                client.client_kill_filter(skipme=True)
                assert ask(http, student).status_code == 504


class TestInbox:
    def test_waiting_takes_nothing_and_lets_the_list_die(
        self, inbox: PredictionInbox, redis_url: str
    ) -> None:
        assert not inbox.wait(0.1, 60)
        with redis.Redis.from_url(redis_url) as client:
            client.rpush(WAITING, "a", "b")
            assert inbox.wait(1, 60)
            assert client.lrange(WAITING, 0, -1) == [b"a", b"b"]
            assert 60_000 < int(client.pttl(WAITING)) <= 62_000

    def test_one_question_is_taken_by_one_worker(
        self, http: httpx.Client, student: str, redis_url: str, clients: ThreadPoolExecutor
    ) -> None:
        asked = [clients.submit(ask, http, student) for _ in range(3)]
        done, counts = threading.Event(), [0, 0]

        def work(number: int) -> None:
            own = PredictionInbox(redis_url)
            while not done.is_set():
                if (question := own.take(0.1)) is not None:
                    counts[number] += 1
                    own.answer(question, b"{}")
            own.close()

        workers = [clients.submit(work, number) for number in (0, 1)]
        assert [each.result().status_code for each in asked] == [200] * 3
        done.set()
        for worker in workers:
            worker.result()
        assert sum(counts) == 3

    def test_a_question_tells_how_long_it_is_waited_for(
        self, http: httpx.Client, student: str, inbox: PredictionInbox, clients: ThreadPoolExecutor
    ) -> None:
        asked = clients.submit(ask, http, student)
        question = taken(inbox)
        assert 0 < question.seconds_left <= 1
        assert question.deadline > time.monotonic()
        inbox.fail(question, "no")
        assert asked.result().status_code == 503
