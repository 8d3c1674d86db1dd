"""The prediction worker's loop, on an inbox that a test fills; `tests/integration` has the real one."""

import time
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as BrokerGoneError

from app.domain.prediction import Question
from app.prediction_queue import PredictionInbox, Taken
from app.settings import Settings
from app.storage import open_store
from tests.tiny_models import make_teacher
from worker.predictor import Predictor

LABELS = ("a", "b")


class Inbox(PredictionInbox):
    """Hands out what it was given, and keeps what is said."""

    def __init__(self, *given: Taken | Exception) -> None:
        self.given = list(given)
        self.answered: list[str] = []
        self.failed: list[str] = []

    def take(self, seconds: float) -> Taken | None:  # noqa: ARG002  (as the real one)
        if not self.given:
            return None
        following = self.given.pop(0)
        if isinstance(following, Exception):
            raise following
        return following

    def answer(self, taken: Taken, content: bytes) -> None:
        assert content.startswith(b'{"student_id"')
        self.answered.append(taken.name)

    def fail(self, taken: Taken, reason: str) -> None:
        self.failed.append(f"{taken.name}: {reason}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = Settings(data_dir=tmp_path)
    store = open_store(settings.resolved_store_dir())
    with store.staging() as folder:
        store.put_folder("students/stu-1", make_teacher(folder / "model", LABELS))
    return settings


def taken(name: str, *, seconds_left: float = 60, prefix: str = "students/stu-1") -> Taken:
    question = Question(student_id="stu-1", digest="", storage_prefix=prefix, size_bytes=1, texts=["hello"])
    return Taken(name, question.model_dump_json().encode(), time.monotonic() + seconds_left)


def served(settings: Settings, *given: Taken | Exception) -> Inbox:
    inbox = Inbox(*given)
    Predictor(settings, inbox, idle_seconds=0.1).run()
    assert inbox.given == []
    return inbox


def test_it_ends_when_nobody_has_asked_for_a_while(settings: Settings) -> None:
    assert served(settings, taken("only")).answered == ["only"]


def test_what_nobody_waits_for_any_more_is_given_up_and_not_answered(settings: Settings) -> None:
    inbox = served(settings, taken("late", seconds_left=-1), taken("in time"))
    assert (inbox.answered, inbox.failed) == (["in time"], [])


def test_what_cannot_be_read_or_loaded_is_told_and_does_not_end_it(settings: Settings) -> None:
    unreadable = Taken("of a newer API", b'{"texts": ["hello"], "language": "fi"}', time.monotonic() + 60)
    inbox = served(settings, unreadable, taken("gone", prefix="students/gone"), taken("sound"))
    assert inbox.answered == ["sound"]
    assert [reason.partition(":")[0] for reason in inbox.failed] == ["of a newer API", "gone"]
    assert str(settings.data_dir) not in "".join(inbox.failed)


def test_it_waits_for_a_broker_that_is_gone(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.predictor.LOOK_UP_SECONDS", 0.01)
    inbox = served(settings, BrokerGoneError("gone"), taken("after"))
    assert inbox.answered == ["after"]
    assert "the broker does not answer" in caplog.text


def test_it_shows_that_it_is_alive(settings: Settings, tmp_path: Path) -> None:
    sign = tmp_path / "alive"
    predictor = Predictor(settings.model_copy(update={"worker_alive_file": sign}), Inbox(), idle_seconds=0.0)
    predictor.run()
    assert sign.exists()
    predictor.close()
    assert not sign.exists()
