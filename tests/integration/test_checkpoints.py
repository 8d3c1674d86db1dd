"""What a training leaves on its way: models to look at, and where a job goes on that was given up."""

import hashlib
import json
from functools import partial

import pytest
from transformers import pipeline

from app.domain.errors import ConflictError
from app.domain.status import Status
from app.persistence import checkpoints
from app.persistence.losses import settle_loss
from app.persistence.tables import Checkpoint
from app.services import jobs
from app.services.backend import Backend
from app.services.resuming import resume
from app.task_queue import TaskQueue
from tests.bench import Bench, at, stop_at
from tests.jobs import OWNER, add_corpus, events_of, job_of, messages_of, student_of
from worker.lease import StopReason

STEPS = 12
"""Of a job of the bench: 24 texts in batches of 4, twice."""


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """Its teachers are uploads of the owner."""
    bench.upload_teachers()
    return bench


@pytest.fixture
def rarely(bench: Bench) -> Bench:
    """One that saves only where the recipe says, or where it stops."""
    bench.settings = bench.settings.model_copy(update={"checkpoint_seconds": 3600})
    return bench


@pytest.fixture
def service(bench: Bench) -> Backend:
    """Where the user of the bench asks; its broker never answers, and need not."""
    queue = TaskQueue("redis://127.0.0.1:1/0")
    return Backend(settings=bench.settings, database=bench.database, store=bench.store, queue=queue)


def _saved(bench: Bench, job_id: str) -> list[Checkpoint]:
    with bench.database.read() as session:
        return list(checkpoints.of_job(session, job_id))


def _steps(bench: Bench, job_id: str) -> list[int]:
    return [row.step for row in _saved(bench, job_id)]


def _cancelled(bench: Bench, service: Backend, kind: str, nth: int, *, keep_best: bool = False) -> str:
    """A job that its user cancels as soon as the nth event of a kind is told."""
    job_id = bench.job()
    lease = bench.lease(job_id)
    cancel = partial(jobs.cancel, service, OWNER, job_id, keep_best=keep_best)
    stop_at(lease, StopReason.CANCELLED, kind, nth, first=cancel)
    assert bench.run(job_id, lease) == 0
    assert job_of(bench.database, job_id).status == Status.CANCELLED
    return job_id


class TestKept:
    def test_one_an_epoch_the_newest_stay_and_each_is_a_whole_model(self, rarely: Bench) -> None:
        job_id = rarely.job(training={"epochs": 4}, checkpoints={"every": "epoch", "keep": 2})
        assert rarely.run(job_id) == 0
        found = _saved(rarely, job_id)
        assert [(row.step, row.epoch, row.total_steps) for row in found] == [(18, 3.0, 24), (12, 2.0, 24)]
        for row in found:
            folder = rarely.store.local_path(row.storage_prefix)
            present = {path.name for path in folder.iterdir()}
            assert present == {entry["path"] for entry in row.files}, "nothing of the optimizer is left"
            for entry in row.files:
                assert hashlib.sha256((folder / entry["path"]).read_bytes()).hexdigest() == entry["sha256"]
            answer = pipeline("text-classification", model=str(folder), top_k=None)(["book a flight"])[0]
            assert {each["label"] for each in answer} == set(row.labels)
            assert f"state at step {row.step} of 24" in (folder / "README.md").read_text()
            assert json.loads((folder / "muka.json").read_text())["report"]["training"]["step"] == row.step
        told = events_of(rarely.database, job_id)
        losses = [event.data["loss"] for event in told if event.type == "metric"]
        assert found[0].loss == pytest.approx(sum(losses[12:18]) / 6)
        assert "cut short" not in self._card(rarely, job_id)

    def _card(self, bench: Bench, job_id: str) -> str:
        prefix = student_of(bench.database, job_id).storage_prefix
        return (bench.store.local_path(prefix) / "README.md").read_text()

    def test_after_every_so_many_steps(self, rarely: Bench) -> None:
        job_id = rarely.job(checkpoints={"every": 5, "keep": 9})
        rarely.run(job_id)
        assert _steps(rarely, job_id) == [10, 5]

    def test_a_checkpoint_answers_as_the_student_would_have(self, rarely: Bench) -> None:
        """The first epoch of two, and one that stops there, differ in their schedule only."""
        job_id = rarely.job(checkpoints={"every": "epoch"})
        rarely.run(job_id)
        [row] = _saved(rarely, job_id)
        other = rarely.job(checkpoints={"every": 6, "keep": 0})
        lease = rarely.lease(other)
        stop_at(lease, StopReason.WARM_STOP, "checkpoint")
        rarely.run(other, lease)
        [same] = _saved(rarely, other)
        weights = [
            (rarely.store.local_path(each.storage_prefix) / "model.safetensors").read_bytes()
            for each in (row, same)
        ]
        assert weights[0] == weights[1]
        assert row.digest == same.digest

    def test_none_stays_when_none_is_asked_for(self, bench: Bench) -> None:
        job_id = bench.job(checkpoints={"keep": 0})
        bench.run(job_id)
        assert _saved(bench, job_id) == []
        assert list(bench.store.list(f"jobs/{job_id}")) == []

    def test_the_optimizer_s_state_stays_with_the_newest_only(self, rarely: Bench) -> None:
        job_id = rarely.job(checkpoints={"every": 3, "keep": 3})
        lease = rarely.lease(job_id)
        stop_at(lease, StopReason.WARM_STOP, "metric", nth=8)
        rarely.run(job_id, lease)
        assert _steps(rarely, job_id) == [8, 6, 3]
        states = [key for key in rarely.store.list(f"jobs/{job_id}") if "optimizer" in key]
        assert states == [f"jobs/{job_id}/attempt-1/checkpoints/8/optimizer.safetensors"]

    def test_one_that_a_live_job_learns_from_is_not_pruned(self, rarely: Bench) -> None:
        job_id = rarely.job(training={"epochs": 3}, checkpoints={"every": 6, "keep": 1})
        lease = rarely.lease(job_id)
        stop_at(lease, StopReason.WARM_STOP, "checkpoint")
        rarely.run(job_id, lease)
        [row] = _saved(rarely, job_id)
        teacher = rarely.teachers[0].model_copy(update={"storage_prefix": row.storage_prefix})
        live = rarely.job(teachers=[teacher, rarely.teachers[1]])
        rarely.run(job_id)
        assert _steps(rarely, job_id) == [12, 6], "the newest, and the one that is needed"
        assert rarely.run(live) == 0
        assert job_of(rarely.database, live).status == Status.SUCCEEDED


class TestKeepBest:
    def test_a_cancelled_training_leaves_its_last_step_as_a_student(
        self, rarely: Bench, service: Backend
    ) -> None:
        job_id = _cancelled(rarely, service, "metric", 7, keep_best=True)
        job, student = job_of(rarely.database, job_id), student_of(rarely.database, job_id)
        assert (job.status, job.report) == (Status.CANCELLED, None)
        folder = rarely.store.local_path(student.storage_prefix)
        assert (
            "Its training was cut short: this is its state at step 7 of 12."
            in (folder / "README.md").read_text()
        )
        answer = pipeline("text-classification", model=str(folder))("book a flight")
        assert answer[0]["label"] in student.labels
        assert messages_of(rarely.database, job_id)[-1] == (
            "cancelled while running; kept as a student as it was at step 7 of 12"
        )

    def test_before_the_first_step_there_is_nothing_to_keep(self, rarely: Bench, service: Backend) -> None:
        job_id = _cancelled(rarely, service, "stage", 3, keep_best=True)
        assert job_of(rarely.database, job_id).student_id is None
        assert messages_of(rarely.database, job_id)[-1].endswith("so there is no student to keep")

    def test_while_it_is_measured_the_training_is_whole(self, rarely: Bench, service: Backend) -> None:
        job_id, whole = _cancelled(rarely, service, "stage", 4, keep_best=True), rarely.job()
        rarely.run(whole)
        assert _steps(rarely, job_id) == [STEPS]
        assert rarely.weights(job_id) == rarely.weights(whole)
        prefix = student_of(rarely.database, job_id).storage_prefix
        assert "cut short" not in (rarely.store.local_path(prefix) / "README.md").read_text()

    def test_a_job_that_fails_after_its_training_leaves_the_trained_student(self, rarely: Bench) -> None:
        held_out = add_corpus(rarely.database, rarely.store, ["fly to rome", "eggs"], ["travel", "food"])
        job_id = rarely.job(evaluation={"corpus": held_out}, evaluation_corpus_id=held_out)
        whole = rarely.job()
        rarely.run(whole)
        lease = rarely.lease(job_id)
        at(lease, "stage", 4, lambda: rarely.store.delete(rarely.teachers[1].storage_prefix or ""))
        assert rarely.run(job_id, lease) == 0
        assert job_of(rarely.database, job_id).status == Status.FAILED
        (kept,) = _saved(rarely, job_id)
        assert (kept.step, kept.total_steps) == (STEPS, STEPS)
        with rarely.store.open(f"{kept.storage_prefix}/model.safetensors") as file:
            assert hashlib.file_digest(file, "sha256").hexdigest() == rarely.weights(whole)

    def test_a_job_that_runs_out_of_time_while_it_is_measured_leaves_it_too(self, rarely: Bench) -> None:
        job_id = rarely.job()
        lease = rarely.lease(job_id)
        stop_at(lease, StopReason.TIMEOUT, "stage", 4)
        assert rarely.run(job_id, lease) == 0
        assert job_of(rarely.database, job_id).status == Status.FAILED
        assert [(row.step, row.total_steps) for row in _saved(rarely, job_id)] == [(STEPS, STEPS)]

    def test_a_worker_that_dies_of_a_cancel_takes_nothing_along(self, bench: Bench, service: Backend) -> None:
        """It was told to cancel, and never came to save its last step."""
        job_id = bench.job()
        lease = bench.lease(job_id)
        cancel = partial(jobs.cancel, service, OWNER, job_id, keep_best=True)
        stop_at(lease, StopReason.LOST, "checkpoint", nth=3, first=cancel)
        bench.run(job_id, lease)
        with bench.database.write() as session:
            settle_loss(session, job_id, lease.attempt, "killed", max_attempts=3)
        assert job_of(bench.database, job_id).status == Status.CANCELLED
        assert bench.store.local_path(student_of(bench.database, job_id).storage_prefix).name == "3"

    def test_a_queued_job_keeps_what_an_attempt_before_has_saved(
        self, rarely: Bench, service: Backend
    ) -> None:
        job_id = rarely.job()
        lease = rarely.lease(job_id)
        stop_at(lease, StopReason.WARM_STOP, "metric", nth=4)
        rarely.run(job_id, lease)
        cancelled = jobs.cancel(service, OWNER, job_id, keep_best=True).row
        assert (cancelled.status, cancelled.student_id) == (
            Status.CANCELLED,
            student_of(rarely.database, job_id).id,
        )

    def test_asked_for_too_late_it_says_what_to_do(self, rarely: Bench, service: Backend) -> None:
        job_id = _cancelled(rarely, service, "metric", 2)
        with pytest.raises(ConflictError, match="resume it"):
            jobs.cancel(service, OWNER, job_id, keep_best=True)
        assert jobs.cancel(service, OWNER, job_id).row.status == Status.CANCELLED


class TestResumed:
    def test_a_cancelled_job_goes_on_at_the_very_step_to_the_same_student(
        self, rarely: Bench, service: Backend
    ) -> None:
        whole = rarely.job()
        rarely.run(whole)
        job_id = _cancelled(rarely, service, "metric", 5)
        resumed = resume(service, OWNER, job_id).row
        assert (resumed.status, resumed.attempt, resumed.finished_at) == (Status.QUEUED, 1, None)
        assert rarely.run(job_id) == 0
        job = job_of(rarely.database, job_id)
        assert (job.status, job.attempt) == (Status.SUCCEEDED, 2)
        assert job.report is not None
        assert job.report["training"]["resumed_from"] == 5
        assert rarely.weights(job_id) == rarely.weights(whole)
        told = messages_of(rarely.database, job_id)
        assert "resumed by the user; the training goes on from step 5" in told

    def test_one_that_ran_too_long_gets_its_time_anew(self, bench: Bench, service: Backend) -> None:
        job_id = bench.job(max_runtime_seconds=60)
        lease = bench.lease(job_id)
        stop_at(lease, StopReason.TIMEOUT, "metric", nth=3)
        bench.run(job_id, lease)
        failed = job_of(bench.database, job_id)
        assert failed.failure is not None
        assert "/resume" in failed.failure["hint"]
        assert resume(service, OWNER, job_id).row.failure is None
        assert bench.run(job_id) == 0
        again = job_of(bench.database, job_id)
        assert again.status == Status.SUCCEEDED
        assert again.started_at is not None
        assert failed.finished_at is not None
        assert again.started_at > failed.finished_at

    def test_without_its_checkpoints_it_goes_on_from_stored_scores(
        self, rarely: Bench, service: Backend
    ) -> None:
        job_id = _cancelled(rarely, service, "metric", 5)
        rarely.store.delete(f"jobs/{job_id}")
        resume(service, OWNER, job_id)
        assert rarely.run(job_id) == 0
        report = job_of(rarely.database, job_id).report
        assert report is not None
        assert report["training"]["resumed_from"] == 0
        assert [teacher["passes_computed"] for teacher in report["teachers"]] == [0, 0]
        told = messages_of(rarely.database, job_id)
        assert any("there is no checkpoint (any more), only stored teacher outputs" in each for each in told)

    def test_the_next_newest_is_tried_when_the_newest_does_not_fit(
        self, bench: Bench, service: Backend
    ) -> None:
        """A checkpoint of another device has more steps than the one that fits."""
        job_id, other = _cancelled(bench, service, "metric", 4), bench.job(training={"seed": 9})
        lease = bench.lease(other)
        stop_at(lease, StopReason.WARM_STOP, "metric", nth=9)
        bench.run(other, lease)
        with bench.store.staging() as folder:
            (folder / "checkpoint").mkdir()
            for path in bench.store.local_path(f"jobs/{other}/attempt-1/checkpoints/9").iterdir():
                (folder / "checkpoint" / path.name).write_bytes(path.read_bytes())
            bench.store.put_folder(f"jobs/{job_id}/attempt-1/checkpoints/9", folder / "checkpoint")
        resume(service, OWNER, job_id)
        assert bench.run(job_id) == 0
        report = job_of(bench.database, job_id).report
        assert report is not None
        assert report["training"]["resumed_from"] == 4
