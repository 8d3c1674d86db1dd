"""Progress is monotonous, throttled, and tells stages at once."""

from typing import Any

import pytest

from app.domain.status import Stage
from worker.progress import Progress


class Log:
    """A row that remembers."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any], dict[str, Any]]] = []

    def tell(self, kind: str, message: str, data: dict[str, Any] | None = None, **columns: Any) -> None:
        assert message
        self.told.append((kind, data or {}, columns))


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def progress(log: Log) -> Progress:
    weights = {
        Stage.PREPARING: 1,
        Stage.SCORING: 5,
        Stage.TRAINING: 2,
        Stage.EVALUATING: 1,
        Stage.PUBLISHING: 1,
    }
    return Progress(log, weights)


def _fraction(progress: Progress) -> float:
    fraction: float = progress.fresh_columns()["progress"]["fraction"]
    return fraction


def test_a_stage_counts_by_its_weight(progress: Progress) -> None:
    progress.begin(Stage.SCORING, "scoring")
    progress.advance(1, 2)
    assert _fraction(progress) == pytest.approx(0.1 + 0.25)
    progress.begin(Stage.TRAINING, "training")
    progress.advance(1, 4)
    assert _fraction(progress) == pytest.approx(0.6 + 0.05)


def test_a_stage_is_told_at_once_with_the_progress(progress: Progress, log: Log) -> None:
    progress.begin(Stage.TRAINING, "training")
    [(kind, data, columns)] = log.told
    assert (kind, data["stage"], columns["stage"]) == ("stage", "training", "training")
    assert columns["progress"]["fraction"] == pytest.approx(0.6)


def test_nothing_new_is_nothing_to_write(progress: Progress) -> None:
    assert progress.fresh_columns() == {}
    progress.begin(Stage.SCORING, "scoring")
    progress.advance(1, 2)
    assert progress.fresh_columns() != {}
    assert progress.fresh_columns() == {}


def test_a_long_training_has_about_two_hundred_metric_points_and_the_last(
    progress: Progress, log: Log
) -> None:
    progress.begin(Stage.TRAINING, "training")
    for step in range(1, 10_002):
        progress.step(step, 10_001, {"loss": 1.0})
    points = [data["step"] for kind, data, _ in log.told if kind == "metric"]
    assert 190 <= len(points) <= 210
    assert points[-1] == 10_001


def test_more_done_than_expected_is_no_more_than_everything(progress: Progress) -> None:
    progress.begin(Stage.PUBLISHING, "publishing")
    progress.advance(7, 5)
    assert _fraction(progress) == 1
    assert progress.finished()["fraction"] == 1
    assert progress.finished()["eta_seconds"] == 0


def test_there_is_no_estimate_before_there_is_a_pace(progress: Progress) -> None:
    progress.begin(Stage.SCORING, "scoring")
    progress.advance(0, 100)
    assert progress.fresh_columns()["progress"]["eta_seconds"] is None
    progress.advance(50, 100)
    assert progress.fresh_columns()["progress"]["eta_seconds"] >= 0
