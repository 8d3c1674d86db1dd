"""One attempt from a queued row to a published student, in this process; the whole way also on Postgres."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from transformers import pipeline

from app.domain.status import Stage, Status
from tests.bench import Bench, stop_at
from tests.jobs import add_corpus, events_of, job_of, messages_of, student_of
from tests.tiny_models import TEXTS
from worker.child import LOST
from worker.lease import StopReason


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    return sqlite_url


class TestSuccess:
    def test_a_job_ends_with_a_student_that_plain_transformers_loads(self, bench: Bench) -> None:
        gold = ["travel", "money", "food", None] * 3
        evaluation = add_corpus(bench.database, bench.store, TEXTS, gold)
        job_id = bench.job(
            name="support-router", evaluation={"corpus": evaluation}, evaluation_corpus_id=evaluation
        )
        assert bench.run(job_id) == 0
        job = job_of(bench.database, job_id)
        assert job.failure is None
        assert (job.status, job.stage) == (Status.SUCCEEDED, Stage.PUBLISHING)
        assert job.progress["fraction"] == 1
        student = student_of(bench.database, job_id)
        assert student.labels == ["travel", "money", "food", "other"]
        folder = bench.store.local_path(student.storage_prefix)
        answer = pipeline("text-classification", model=str(folder), top_k=None)(["book a flight"])[0]
        assert {entry["label"] for entry in answer} == set(student.labels)
        self._check_manifest(folder, student.files)
        self._check_report(job.report, folder)

    def _check_manifest(self, folder: Path, files: list[dict[str, Any]]) -> None:
        present = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        assert present == {entry["path"] for entry in files}
        assert {"config.json", "model.safetensors", "README.md", "muka.json", "MANIFEST.json"} <= present
        pictures = {"loss", "teacher_shares", "uncertainty", "margin", "confusion"}
        drawn = {f"plots/{name}.{kind}" for name in pictures for kind in ("svg", "png")}
        assert drawn == {path for path in present if path.startswith("plots/")}
        card = (folder / "README.md").read_text()
        assert all(f"]({path})" in card for path in drawn)
        for entry in files:
            content = (folder / entry["path"]).read_bytes()
            assert hashlib.sha256(content).hexdigest() == entry["sha256"]
            assert len(content) == entry["size_bytes"]
        listed = json.loads((folder / "MANIFEST.json").read_text())["files"]
        assert {entry["path"] for entry in listed} == present - {"MANIFEST.json"}

    def _check_report(self, report: dict[str, Any] | None, folder: Path) -> None:
        assert report is not None
        assert json.loads((folder / "muka.json").read_text())["report"] == report
        evaluation = report["evaluation"]
        assert evaluation["texts"] == 9
        for system in ("student", "ensemble", "naive_ensemble"):
            self._check_figures(evaluation[system])
        for figures in evaluation["teachers"]:
            self._check_figures(figures)
        assert evaluation["ensemble"]["method"]["mc_samples"] == 2
        assert 0 <= evaluation["right_teacher_chosen"] <= 1
        assert set(report["seconds"]) == {"preparing", "scoring", "training", "evaluating"}
        assert all(rate > 0 for rate in report["throughput"].values())
        assert [teacher["mc_samples"] for teacher in report["teachers"]] == [2, 2]
        assert [teacher["passes_computed"] for teacher in report["teachers"]] == [3 * 24] * 2
        for counts in (report["predicted_labels"], report["taught_labels"]):
            assert sum(counts.values()) == 24
            assert set(counts) == {"travel", "money", "food", "other"}
        assert report["choice"]["decides"]
        self._check_texts(report, folder)

    def _check_figures(self, figures: dict[str, Any]) -> None:
        values = [figures[key] for key in ("accuracy", "macro_f1", "calibration_error")]
        assert all(0 <= value <= 1 for value in [*values, *figures["accuracy_by_teacher"]])
        assert sum(cell["texts"] for cell in figures["confusion"]) == 9
        assert sum(label["support"] for label in figures["per_label"]) == 9

    def _check_texts(self, report: dict[str, Any], folder: Path) -> None:
        rows = pq.read_table(folder / "texts.parquet").to_pylist()
        assert [row["row"] for row in rows] == list(range(24))
        chosen = [row["chosen_teacher"] for row in rows]
        assert report["choice"]["chosen_share"] == pytest.approx([chosen.count(i) / 24 for i in (0, 1)])
        for row in rows:
            assert sum(row["weights"]) == pytest.approx(1, abs=1e-5)
            assert row["orphan"] == (max(row["certainty"]) < 0.5), "they are chosen by entropy"
            assert row["margin"] == pytest.approx(abs(row["certainty"][0] - row["certainty"][1]), abs=1e-5)
            assert all(0 <= nats <= math.log(3) for nats in row["entropy"])
            u = [1 - nats / math.log(labels) for nats, labels in zip(row["entropy"], (2, 3), strict=True)]
            assert row["certainty"] == pytest.approx(u, abs=1e-5)
        orphans = sum(row["orphan"] for row in rows)
        assert report["orphans"] == {"texts": orphans, "share": orphans / 24, "certainty_below": 0.5}
        labels = [row["label"] for row in rows]
        assert report["predicted_labels"] == {label: labels.count(label) for label in report["labels"]}

    def test_the_table_tells_whom_the_method_chose_and_not_whom_certainty_would_have(
        self, bench: Bench
    ) -> None:
        job_id = bench.job(whole_method={"name": "consensus", "temperature": 100.0})
        assert bench.run(job_id) == 0
        job = job_of(bench.database, job_id)
        assert job.report is not None
        assert job.report["choice"]["decides"]
        folder = bench.store.local_path(student_of(bench.database, job_id).storage_prefix)
        rows = pq.read_table(folder / "texts.parquet").to_pylist()
        assert all(row["weights"] == pytest.approx([0.5, 0.5], abs=0.05) for row in rows), (
            "by that temperature"
        )
        assert any(abs(row["certainty"][0] - row["certainty"][1]) > 0.1 for row in rows)

    def test_the_event_log_tells_stages_scores_metrics_and_the_end(self, bench: Bench) -> None:
        job_id = bench.job()
        bench.run(job_id)
        events = events_of(bench.database, job_id)
        assert [event.sequence for event in events] == list(range(1, len(events) + 1))
        stages = [event.data["stage"] for event in events if event.type == "stage"]
        assert stages == ["preparing", "scoring", "training", "evaluating", "publishing"]
        metrics = [event.data for event in events if event.type == "metric"]
        assert [metric["step"] for metric in metrics] == list(range(1, 13))
        assert metrics[0]["loss"] > 0
        assert [event.type for event in events].count("scores") == 2
        assert events[-1].data["status"] == "succeeded"

    def test_nothing_but_student_and_scores_is_left_in_the_store(self, bench: Bench) -> None:
        job_id = bench.job(checkpoints={"keep": 0})
        bench.run(job_id)
        assert list(bench.store.list(f"jobs/{job_id}")) == []
        assert len(list(bench.store.list("scores"))) == 6, "logits, features and samples of each teacher"

    def test_a_corpus_s_labels_are_never_read_by_the_training(self, bench: Bench) -> None:
        plain, labelled = (
            bench.job(),
            bench.job(corpus_id=add_corpus(bench.database, bench.store, TEXTS * 2, ["x", None] * len(TEXTS))),
        )
        bench.run(plain)
        bench.run(labelled)
        assert bench.weights(plain) == bench.weights(labelled)


class TestSuccessOnPostgres(TestSuccess):
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url


class TestMethods:
    def test_adaptive_sampling_is_kept_for_all_teachers_together(self, bench: Bench) -> None:
        method = {"name": "muka", "adaptive": True, "mc_samples": 4}
        first, second = bench.job(method=method), bench.job(method=method)
        bench.run(first)
        bench.run(second)
        report = job_of(bench.database, second).report
        assert report is not None
        assert [teacher["shards_reused"] for teacher in report["teachers"]] == [1, 1]
        assert all(2 <= teacher["passes_per_text"] <= 4 for teacher in report["teachers"])
        assert bench.weights(first) == bench.weights(second)

    @pytest.mark.parametrize("name", ["vanilla_kd", "uhc", "dfa", "cfl"])
    def test_every_method_makes_a_student(self, bench: Bench, name: str) -> None:
        job_id = bench.job(whole_method={"name": name})
        bench.run(job_id)
        job = job_of(bench.database, job_id)
        assert job.failure is None
        assert job.status == Status.SUCCEEDED


class TestRepeating:
    def test_the_same_request_makes_the_same_student_and_repeats_no_pass(self, bench: Bench) -> None:
        first, second = bench.job(), bench.job()
        bench.run(first)
        bench.run(second)
        assert bench.weights(first) == bench.weights(second)
        report = job_of(bench.database, second).report
        assert report is not None
        assert [teacher["shards_reused"] for teacher in report["teachers"]] == [1, 1]
        digests = [student_of(bench.database, job_id).digest for job_id in (first, second)]
        assert digests[0] == digests[1]

    @pytest.mark.parametrize(
        ("change", "passes"),
        [
            ({"method": {"mc_seed": 2}}, 2),
            ({"method": {"name": "muka", "mc_samples": 1}}, 1),
            ({"training": {"max_length": 5}}, 3),
        ],
    )
    def test_what_the_teachers_do_see_is_asked_for_and_no_more(
        self, bench: Bench, change: dict[str, Any], passes: int
    ) -> None:
        bench.run(bench.job())
        assert self._passes(bench, bench.job(**change)) == [passes * len(TEXTS) * 2] * 2

    @pytest.mark.parametrize(
        "change",
        [
            {"training": {"epochs": 1, "seed": 2}},
            {"method": {"temperature": 0.5, "score": "energy", "integration": "hard", "reweight": "none"}},
            {"whole_method": {"name": "consensus"}},
            {"whole_method": {"name": "vanilla_kd"}},
            {"whole_method": {"name": "uhc", "teacher_temperature": 1.0}},
            {"whole_method": {"name": "dfa"}},
            {"whole_method": {"name": "cfl"}},
            {"student": {"layers": 1}},
        ],
    )
    def test_what_the_teachers_do_not_see_repeats_no_pass(self, bench: Bench, change: dict[str, Any]) -> None:
        bench.run(bench.job())
        assert self._passes(bench, bench.job(**change)) == [0, 0]

    def test_samples_that_are_wanted_later_complete_what_is_there(self, bench: Bench) -> None:
        fresh = bench.job(whole_method={"name": "cfl"})
        assert self._passes(bench, fresh) == [len(TEXTS) * 2] * 2
        assert self._passes(bench, bench.job()) == [2 * len(TEXTS) * 2] * 2
        again = bench.job(whole_method={"name": "cfl"})
        assert self._passes(bench, again) == [0, 0]
        assert bench.weights(fresh) == bench.weights(again)

    def _passes(self, bench: Bench, job_id: str) -> list[int]:
        """Text passes that each teacher was asked for."""
        assert bench.run(job_id) == 0
        report = job_of(bench.database, job_id).report
        assert report is not None
        reused = [teacher["shards_reused"] for teacher in report["teachers"]]
        passes = [teacher["passes_computed"] for teacher in report["teachers"]]
        assert reused == [int(not spent) for spent in passes]
        return passes

    def test_a_warm_stop_gives_the_job_back_and_the_next_attempt_makes_the_same_student(
        self, bench: Bench
    ) -> None:
        job_id, whole = bench.job(), bench.job()
        lease = bench.lease(job_id)
        stop_at(lease, StopReason.WARM_STOP, "metric", nth=7)
        assert bench.run(job_id, lease) == 0
        job = job_of(bench.database, job_id)
        assert (job.status, job.losses, job.lease_owner) == (Status.QUEUED, 0, None)
        assert bench.run(job_id) == 0
        bench.run(whole)
        assert bench.weights(job_id) == bench.weights(whole)
        assert "going on from step 7" in messages_of(bench.database, job_id)
        report = job_of(bench.database, job_id).report
        assert report is not None
        assert report["training"]["resumed_from"] == 7

    def test_a_checkpoint_of_another_training_is_told_and_not_used(self, bench: Bench) -> None:
        other, job_id = bench.job(training={"seed": 9}), bench.job()
        lease = bench.lease(other)
        stop_at(lease, StopReason.WARM_STOP, "metric", nth=3)
        bench.run(other, lease)
        with bench.store.staging() as folder:
            (folder / "checkpoint").mkdir()
            for path in bench.store.local_path(f"jobs/{other}/attempt-1/checkpoints/3").iterdir():
                (folder / "checkpoint" / path.name).write_bytes(path.read_bytes())
            bench.store.put_folder(f"jobs/{job_id}/attempt-1/checkpoints/3", folder / "checkpoint")
        assert bench.run(job_id) == 0
        assert job_of(bench.database, job_id).status == Status.SUCCEEDED
        assert [event.type for event in events_of(bench.database, job_id)].count("warning") == 1


class TestStopping:
    @pytest.mark.parametrize("kind", ["stage", "scores", "metric", "checkpoint"])
    def test_cancel_ends_a_running_job(self, bench: Bench, kind: str) -> None:
        job_id = bench.job()
        lease = bench.lease(job_id)
        stop_at(lease, StopReason.CANCELLED, kind)
        assert bench.run(job_id, lease) == 0
        job = job_of(bench.database, job_id)
        assert (job.status, job.student_id) == (Status.CANCELLED, None)

    def test_the_heartbeat_sees_a_cancel(self, bench: Bench) -> None:
        job_id = bench.job(training={"epochs": 1000})
        lease = bench.lease(job_id)
        bench.database.engine.dispose()
        with bench.database.write() as session:
            lease.change(session, Status.CANCELLING, "cancel asked for")
        assert bench.run(job_id, lease) == 0
        assert job_of(bench.database, job_id).status == Status.CANCELLED

    def test_too_long_a_job_has_timed_out(self, bench: Bench) -> None:
        job_id = bench.job(max_runtime_seconds=1, training={"epochs": 1000})
        assert bench.run(job_id) == 0
        job = job_of(bench.database, job_id)
        assert job.status == Status.FAILED
        assert job.failure is not None
        assert (job.failure["code"], job.failure["retryable"]) == ("timeout", True)

    def test_a_stale_attempt_writes_nothing_and_removes_its_files(self, bench: Bench) -> None:
        job_id = bench.job()
        stale = bench.lease(job_id)
        with bench.database.write() as session:
            stale.change(session, Status.QUEUED, "taken away")
        bench.run(job_id)
        before = messages_of(bench.database, job_id)
        assert bench.run(job_id, stale) == LOST
        assert messages_of(bench.database, job_id) == before
        assert bench.store.exists(student_of(bench.database, job_id).storage_prefix)


class TestFailure:
    def _failure(self, bench: Bench, job_id: str) -> dict[str, Any]:
        assert bench.run(job_id) == 0
        job = job_of(bench.database, job_id)
        assert job.status == Status.FAILED
        assert job.failure is not None
        assert job.failure["message"]
        assert job.failure["hint"]
        assert str(bench.settings.data_dir) not in json.dumps(job.failure)
        assert messages_of(bench.database, job_id)[-1].startswith("failed: ")
        return job.failure

    def test_a_teacher_that_is_gone(self, bench: Bench) -> None:
        job_id = bench.job()
        bench.store.delete(bench.teachers[1].storage_prefix or "")
        failure = self._failure(bench, job_id)
        assert (failure["code"], failure["stage"]) == ("teacher_not_found", "preparing")

    def test_a_hub_teacher_that_cannot_be_had(self, bench: Bench) -> None:
        hub = bench.teachers[0].model_copy(
            update={"source": "hub", "storage_prefix": None, "repo_id": "acme/none", "commit": "0" * 40}
        )
        failure = self._failure(bench, bench.job(teachers=[hub, bench.teachers[1]]))
        assert failure["code"] == "teacher_not_found"
        assert "acme/none" in failure["message"]

    def test_a_corpus_that_is_gone(self, bench: Bench) -> None:
        failure = self._failure(bench, bench.job(corpus_id="cor-gone"))
        assert failure["code"] == "corpus_invalid"

    def test_a_teacher_whose_weights_are_broken(self, bench: Bench) -> None:
        folder = bench.store.local_path(bench.teachers[0].storage_prefix or "")
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(b"pickle")
        failure = self._failure(bench, bench.job())
        assert (failure["code"], failure["stage"]) == ("teacher_unsafe_format", "scoring")
