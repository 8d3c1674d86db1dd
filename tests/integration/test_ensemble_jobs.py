"""A job whose method trains no student: what the teachers say together about every text, and nothing else."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from app.domain.status import Stage, Status
from app.persistence.tables import Amalgamation, Student
from app.services import jobs
from app.services.backend import Backend
from app.services.resuming import resume
from app.task_queue import TaskQueue
from tests.bench import LABELS, Bench, at, stop_at
from tests.jobs import OWNER, add_corpus, events_of, job_of, messages_of
from tests.tiny_models import TEXTS
from worker.child import LOST
from worker.lease import StopReason

UNION = ["travel", "money", "food", "other"]
EXACT = {"precision": "float32"}
SINGLE_PASS = {"name": "ensemble", "mc_samples": 0}
SAMPLED = {"name": "ensemble", "mc_samples": 2}


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def service(bench: Bench) -> Backend:
    """Where the user of the bench asks; its broker never answers, and need not."""
    queue = TaskQueue("redis://127.0.0.1:1/0")
    return Backend(settings=bench.settings, database=bench.database, store=bench.store, queue=queue)


def _rows(bench: Bench, job_id: str) -> list[dict[str, Any]]:
    key = job_of(bench.database, job_id).text_table
    assert key is not None
    with bench.store.open(key) as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows


def _report(bench: Bench, job_id: str) -> dict[str, Any]:
    report = job_of(bench.database, job_id).report
    assert report is not None
    return report


class TestSuccess:
    def test_it_ends_with_the_table_of_its_texts_and_no_student(self, bench: Bench) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        assert bench.run(job_id) == 0
        job = job_of(bench.database, job_id)
        assert job.failure is None
        assert (job.status, job.stage, job.student_id) == (Status.SUCCEEDED, Stage.PUBLISHING, None)
        assert job.progress["fraction"] == 1
        assert list(bench.store.list(f"jobs/{job_id}")) == [job.text_table]
        assert list(bench.store.children("students")) == []
        with bench.database.read() as session:
            assert session.scalar(select(func.count()).select_from(Student)) == 0
        stages = [each.data["stage"] for each in events_of(bench.database, job_id) if each.type == "stage"]
        assert stages == ["preparing", "scoring", "evaluating", "publishing"]
        assert messages_of(bench.database, job_id)[-1] == "what the teachers say together is published"

    def test_the_report_tells_everything_but_a_student(self, bench: Bench) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        bench.run(job_id)
        report, rows = _report(bench, job_id), _rows(bench, job_id)
        assert not report.keys() & {"training", "taught_labels", "agreement", "evaluation"}
        assert set(report["seconds"]) == {"preparing", "scoring", "evaluating"}
        assert report["throughput"]["training_texts_per_second"] is None
        assert report["throughput"]["scoring_passes_per_second"] > 0
        assert [teacher["passes_computed"] for teacher in report["teachers"]] == [3 * len(TEXTS) * 2] * 2
        assert report["choice"]["decides"]
        labels = [row["label"] for row in rows]
        assert report["predicted_labels"] == {label: labels.count(label) for label in UNION}
        assert report["orphans"]["texts"] == sum(row["orphan"] for row in rows)

    def test_the_answers_are_the_teachers_probabilities_weighted_by_their_certainty(
        self, bench: Bench
    ) -> None:
        job_id = bench.job(whole_method=SAMPLED, training=EXACT)
        bench.run(job_id)
        rows = _rows(bench, job_id)
        assert [row["row"] for row in rows] == list(range(len(TEXTS) * 2))
        for row, q in zip(rows, self._expected(bench, rows), strict=True):
            certainty = torch.tensor(row["certainty"])
            assert row["weights"] == pytest.approx(torch.softmax(certainty / 0.2, -1).tolist(), abs=1e-5)
            assert row["label"] == max(q, key=q.__getitem__)
            assert row["probability"] == pytest.approx(max(q.values()), abs=1e-4)

    def _expected(self, bench: Bench, rows: list[dict[str, Any]]) -> list[dict[str, float]]:
        """q of each text, by plain transformers and section 4 of the paper."""
        q = [dict.fromkeys(UNION, 0.0) for _ in rows]
        for index, teacher in enumerate(bench.teachers):
            folder = bench.store.local_path(teacher.storage_prefix or "")
            model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
            tokenizer = AutoTokenizer.from_pretrained(folder)
            for row, place in zip(rows, q, strict=True):
                with torch.inference_mode():
                    logits = model(**tokenizer(TEXTS[row["row"] % len(TEXTS)], return_tensors="pt")).logits[0]
                for label, p in zip(LABELS[index], torch.softmax(logits, -1).tolist(), strict=True):
                    place[label] += row["weights"][index] * p
        return q

    def test_a_labelled_corpus_measures_the_teachers_alone_and_together(self, bench: Bench) -> None:
        gold = ["travel", "money", "food", "other"] * 3
        evaluation = add_corpus(bench.database, bench.store, TEXTS, gold)
        named = {"evaluation": {"corpus": evaluation}, "evaluation_corpus_id": evaluation}
        job_id = bench.job(whole_method=SINGLE_PASS, training=EXACT, **named)
        assert bench.run(job_id) == 0
        told = _report(bench, job_id)["evaluation"]
        assert told.keys() >= {"teachers", "ensemble", "naive_ensemble", "right_teacher_chosen"}
        assert "student" not in told
        assert told["ensemble"]["method"]["mc_samples"] == 0
        answers = [row["label"] for row in _rows(bench, job_id)][: len(TEXTS)]
        right = sum(answer == label for answer, label in zip(answers, gold, strict=True))
        assert told["ensemble"]["accuracy"] == pytest.approx(right / len(TEXTS))

    def test_it_asks_nothing_that_a_student_s_job_has_asked_already(self, bench: Bench) -> None:
        bench.run(bench.job())
        job_id = bench.job(whole_method=SAMPLED)
        bench.run(job_id)
        assert [teacher["passes_computed"] for teacher in _report(bench, job_id)["teachers"]] == [0, 0]


class TestSuccessOnPostgres(TestSuccess):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestEnds:
    @pytest.mark.parametrize("nth", [1, 3, 4])
    def test_cancelled_in_any_stage_it_has_nothing_to_keep(
        self, bench: Bench, service: Backend, nth: int
    ) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        lease = bench.lease(job_id)
        cancel = partial(jobs.cancel, service, OWNER, job_id, keep_best=True)
        stop_at(lease, StopReason.CANCELLED, "stage", nth, first=cancel)
        bench.run(job_id, lease)
        job = job_of(bench.database, job_id)
        assert job.status == (Status.CANCELLED if nth < 4 else Status.SUCCEEDED), (
            "the last stage has no way back"
        )
        assert job.student_id is None
        if nth < 4:
            assert messages_of(bench.database, job_id)[-1].endswith("so there is no student to keep")
            assert list(bench.store.list(f"jobs/{job_id}")) == []

    def test_one_that_ran_too_long_is_resumed_and_repeats_no_pass(
        self, bench: Bench, service: Backend
    ) -> None:
        bench.upload_teachers()
        job_id = bench.job(whole_method=SAMPLED)
        lease = bench.lease(job_id)
        stop_at(lease, StopReason.TIMEOUT, "stage", nth=3)
        bench.run(job_id, lease)
        assert job_of(bench.database, job_id).status == Status.FAILED
        resume(service, OWNER, job_id)
        assert bench.run(job_id) == 0
        assert job_of(bench.database, job_id).status == Status.SUCCEEDED
        assert [teacher["shards_reused"] for teacher in _report(bench, job_id)["teachers"]] == [1, 1]
        assert len(_rows(bench, job_id)) == len(TEXTS) * 2

    def test_a_stale_attempt_publishes_nothing_and_removes_its_table(self, bench: Bench) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        stale = bench.lease(job_id)

        def lose() -> None:
            with bench.database.write() as session:
                stale.change(session, Status.QUEUED, "taken away")

        at(stale, "stage", 4, lose)
        assert bench.run(job_id, stale) == LOST
        assert list(bench.store.list(f"jobs/{job_id}")) == []
        assert job_of(bench.database, job_id).text_table is None
        assert bench.run(job_id) == 0
        assert list(bench.store.list(f"jobs/{job_id}")) == [f"jobs/{job_id}/attempt-2/texts.parquet"]

    def test_a_commit_whose_answer_is_lost_on_the_way_counts(self, bench: Bench) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        lease = bench.lease(job_id)
        write = lease._write_once

        def deaf(change: Callable[[Session], Any]) -> Any:
            answer = write(change)
            if isinstance(answer, Amalgamation):
                raise OperationalError("COMMIT", {}, Exception("the connection broke"))
            return answer

        lease._write_once = deaf  # type: ignore[method-assign]
        assert bench.run(job_id, lease) == 0
        assert job_of(bench.database, job_id).status == Status.SUCCEEDED
        assert len(_rows(bench, job_id)) == len(TEXTS) * 2

    def test_what_dead_attempts_left_goes_with_the_publication(self, bench: Bench) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        bench.run(other := bench.job(whole_method=SAMPLED))
        with bench.store.staging() as staged:
            table = bench.store.local_path(job_of(bench.database, other).text_table or "")
            (staged / "left").write_bytes(table.read_bytes())
            bench.store.put_file(f"jobs/{job_id}/attempt-0/texts.parquet", staged / "left")
        bench.run(job_id)
        assert list(bench.store.list(f"jobs/{job_id}")) == [f"jobs/{job_id}/attempt-1/texts.parquet"]

    def test_deleted_it_leaves_nothing(self, bench: Bench, service: Backend) -> None:
        job_id = bench.job(whole_method=SAMPLED)
        bench.run(job_id)
        jobs.delete(service, OWNER, job_id)
        assert not bench.store.exists(f"jobs/{job_id}")
