"""What `make bench-api` calculates, and that what it fills a database with is what it then asks for."""

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import pytest
from sqlalchemy import func, select

from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from benchmarks._api_rows import LIVE, OWNER, filled, forget, job_id, submitted, submitters
from benchmarks._api_summary import TARGETS, Target, medians, percentile, submission_faults
from benchmarks._api_wrk import LoadError, figures

JOBS = 200


def test_figures_are_the_medians_of_the_rounds_but_lost_jobs_add_up() -> None:
    rounds = [
        {"rate": 3.0, "post_faults": 0},
        {"rate": 1.0, "post_faults": 2},
        {"rate": 9.0, "post_faults": 1},
    ]
    assert medians(rounds) == {"rate": 3.0, "post_faults": 3}


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_a_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile(reversed(range(1, 101)), share) == value


def test_the_percentile_of_one_value_is_that_value() -> None:
    assert percentile([7.0], 0.99) == 7.0


def test_limits_are_met_from_below_and_goals_from_above() -> None:
    limit = Target("p99", "its p99", 30, is_limit=True, unit=" ms")
    goal = Target("rate", "the rate", 1200, is_limit=False, unit="/s")
    assert [limit.is_met(value) for value in (29, 30, 30.1)] == [True, True, False]
    assert [goal.is_met(value) for value in (1199, 1200)] == [False, True]
    assert limit.row(31.5) == ("its p99", "31.50 ms", "at most 30 ms", "MISSED")
    assert goal.row(1500) == ("the rate", "1,500/s", "at least 1,200/s", "met")


def test_every_target_is_a_figure_of_its_own() -> None:
    assert len({target.figure for target in TARGETS}) == len(TARGETS) == 8


class TestSubmissionFaults:
    ANSWERS = (("key-1", "job-1", 202), ("key-1", "job-1", 202), ("key-2", "job-2", 202))
    KEPT = MappingProxyType({"key-1": "job-1", "key-2": "job-2"})
    ROWS = frozenset({"job-1", "job-2"})

    def test_none_when_all_is_well(self) -> None:
        assert set(submission_faults(self.ANSWERS, self.ROWS, self.KEPT, self.ROWS).values()) == {0}

    def test_a_job_that_was_promised_and_is_not_there_is_lost(self) -> None:
        found = submission_faults(self.ANSWERS, {"job-1"}, self.KEPT, self.ROWS)
        assert (found["lost"], found["doubled"]) == (1, 0)

    def test_two_jobs_for_one_key_are_a_double(self) -> None:
        answers = [*self.ANSWERS, ("key-2", "job-3", 202)]
        rows = {*self.ROWS, "job-3"}
        assert submission_faults(answers, rows, self.KEPT, rows)["doubled"] == 1

    def test_so_is_a_job_that_nobody_was_told_of(self) -> None:
        rows = {*self.ROWS, "job-9"}
        assert submission_faults(self.ANSWERS, rows, self.KEPT, rows)["doubled"] == 1

    def test_a_job_of_which_no_worker_hears_is_unsent(self) -> None:
        assert submission_faults(self.ANSWERS, self.ROWS, self.KEPT, {"job-1"})["unsent"] == 1

    def test_an_answer_that_is_not_kept_under_its_key_is_told(self) -> None:
        kept = {"key-1": "job-1", "key-2": "job-1"}
        assert submission_faults(self.ANSWERS, self.ROWS, kept, self.ROWS)["answers_not_kept"] == 1

    def test_errors_are_counted(self) -> None:
        answers = [*self.ANSWERS, ("key-3", "", 429)]
        assert submission_faults(answers, self.ROWS, self.KEPT, self.ROWS)["refused"] == 1


def test_wrk_tells_microseconds_and_we_milliseconds() -> None:
    told = {"requests": 3000, "microseconds": 2_000_000, "faults": 0, "p50": 900, "p99": 25_000, "max": 4e5}
    assert figures(told) == {"requests_per_second": 1500, "p50": 0.9, "p99": 25, "max": 400}


@pytest.mark.parametrize("told", [{"requests": 100, "faults": 1}, {"requests": 0, "faults": 0}])
def test_times_of_requests_that_failed_are_refused(told: dict[str, int]) -> None:
    with pytest.raises(LoadError):
        figures({**told, "microseconds": 1, "p50": 1, "p99": 1, "max": 1})


def test_the_filled_table_has_the_jobs_that_are_asked_for(
    tmp_path: Path, empty_postgres_url: Callable[[], str], redis_url: str
) -> None:
    with filled(tmp_path, empty_postgres_url(), redis_url, JOBS) as service:
        database = service.backend.database
        with database.read() as session:
            newest = amalgamations.page(session, OWNER, limit=LIVE)
            assert [job.id for job in newest] == [job_id(JOBS - number) for number in range(LIVE + 1)]
            assert [job.status for job in newest[:5]] == ["running", "queued", "queued", "queued", "running"]
            assert newest[-1].status in {"succeeded", "failed", "cancelled"}
            assert session.scalar(select(func.count()).select_from(Amalgamation)) == JOBS
            (one,) = amalgamations.page(session, OWNER, limit=5, metadata={"ticket": "17"})
            assert (one.id, one.user_metadata["team"]) == (job_id(17), "team-7")
        assert len(submitters(service.backend, 2)) == 2
        assert submitted(service.backend) == (set(), {}, set())
        forget(service.backend)
