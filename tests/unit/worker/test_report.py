"""Times and rates of a report, with numbers worked out by hand."""

import pytest

from worker.report import of_times

TOLD = {
    "teachers": [{"passes_computed": 300}, {"passes_computed": 100}],
    "corpus": {"texts": 100},
}
SECONDS = {"preparing": 1.0, "scoring": 4.0, "evaluating": 2.0}


def test_only_what_this_attempt_trained_counts() -> None:
    training = {"steps": 8, "resumed_from": 2, "epoch_losses": [0.3, 0.2], "seconds": 3.0}
    told = of_times(TOLD | {"training": training}, SECONDS | {"training": 3.5}, answering_seconds=0.5)
    assert told["seconds"]["training"] == 3.5
    assert told["throughput"] == {
        "scoring_passes_per_second": 100.0,
        "training_texts_per_second": pytest.approx(0.75 * 2 * 100 / 3),
        "evaluating_texts_per_second": 200.0,
    }


def test_without_a_training_there_is_no_rate_of_it() -> None:
    told = of_times(TOLD, SECONDS, answering_seconds=0.5)
    assert told["seconds"] == SECONDS
    assert told["throughput"] == {
        "scoring_passes_per_second": 100.0,
        "training_texts_per_second": None,
        "evaluating_texts_per_second": 200.0,
    }
