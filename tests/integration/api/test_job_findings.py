"""What a job found out, over HTTP: report, table of texts, curve of the training."""

import io
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from app.domain.identifiers import Prefix, new_id
from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation, Corpus
from app.persistence.time import now
from app.services import text_report
from app.services.backend import Backend
from tests.api_objects import add_student, put_folder

ROWS = 5000
"""More than a batch, and more than a row group."""
PARQUET = "application/vnd.apache.parquet"


# What these tests say does not depend on the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def text_of(row: int) -> str:
    """With what must not end a line."""
    return f"text {row} é\u2028\x85\n"


@cache
def table(rows: int) -> pa.Table:
    """As the worker writes it: every tenth text is an orphan."""
    certainty = [[0.1, 0.4] if row % 10 == 0 else [0.9, 0.3] for row in range(rows)]
    pairs = pa.list_(pa.float32(), 2)
    return pa.table(
        {
            "row": pa.array(range(rows), pa.int64()),
            "chosen_teacher": pa.array([int(row % 10 == 0) for row in range(rows)], pa.int16()),
            "weights": pa.array([[0.25, 0.75]] * rows, pairs),
            "certainty": pa.array(certainty, pairs),
            "entropy": pa.array([[0.1, 0.2]] * rows, pairs),
            "margin": pa.array([0.3] * rows, pa.float32()),
            "label": ["refund", "late"] * (rows // 2),
            "probability": pa.array([0.6] * rows, pa.float32()),
            "orphan": [row % 10 == 0 for row in range(rows)],
        }
    )


def parquet(content: pa.Table, group: int) -> bytes:
    sink = io.BytesIO()
    pq.write_table(content, sink, row_group_size=group)
    return sink.getvalue()


@pytest.fixture
def job(api: TestClient, backend: Backend, body: dict[str, Any], advance: Callable[..., None]) -> str:
    """A job that has succeeded, with its table and its corpus."""
    job_id = api.post("/amalgamations", json=body).json()["id"]
    texts = pa.table({"text": [text_of(row) for row in range(ROWS)]})
    with backend.store.staging() as staged:
        (staged / "corpus").write_bytes(parquet(texts, 700))
        backend.store.put_file(f"corpora/{body['corpus']}.parquet", staged / "corpus")
    student = add_student(backend, {"texts.parquet": parquet(table(ROWS), 1024)})
    advance(job_id, Status.SUCCEEDED, student_id=student, report=REPORT)
    return job_id


FIGURES = {"accuracy": 0.9, "per_label": [{"label": "late"}], "confusion": [], "confusion_cells": 0}
REPORT = {
    "labels": ["refund", "late"],
    "evaluation": {"texts": 3, "student": FIGURES, "teachers": [FIGURES], "ensemble": FIGURES},
}


def lines(answer: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in answer.text.splitlines()]


@on_sqlite
class TestTexts:
    def test_json_lines_hold_every_text_with_its_figures(self, api: TestClient, job: str) -> None:
        answer = api.get(f"/amalgamations/{job}/texts")
        assert answer.headers["content-type"] == "application/jsonl"
        assert f"{job}-texts.jsonl" in answer.headers["content-disposition"]
        rows = lines(answer)
        assert [row["row"] for row in rows] == list(range(ROWS))
        assert all(row["text"] == text_of(row["row"]) for row in rows)
        assert rows[10] == {
            "row": 10,
            "text": text_of(10),
            "chosen_teacher": 1,
            "weights": [0.25, 0.75],
            "certainty": [0.1, 0.4],
            "entropy": [0.1, 0.2],
            "margin": 0.3,
            "label": "refund",
            "probability": 0.6,
            "orphan": True,
        }

    @pytest.mark.parametrize("ask", [{"headers": {"Accept": PARQUET}}, {"params": {"format": "parquet"}}])
    def test_parquet_holds_the_same(self, api: TestClient, job: str, ask: dict[str, Any]) -> None:
        answer = api.get(f"/amalgamations/{job}/texts", **ask)
        assert answer.headers["content-type"] == PARQUET
        assert answer.headers["vary"] == "Accept"
        read = pq.read_table(io.BytesIO(answer.content))
        assert read.column("text").to_pylist() == [text_of(row) for row in range(ROWS)]
        assert read.drop_columns(["text"]).equals(table(ROWS))

    def test_format_wins_over_accept(self, api: TestClient, job: str) -> None:
        answer = api.get(f"/amalgamations/{job}/texts?format=jsonl", headers={"Accept": PARQUET})
        assert answer.headers["content-type"] == "application/jsonl"

    def test_orphans_are_the_texts_of_which_no_teacher_is_sure(self, api: TestClient, job: str) -> None:
        rows = lines(api.get(f"/amalgamations/{job}/texts?orphans=true"))
        assert [row["row"] for row in rows] == list(range(0, ROWS, 10))
        assert rows[3]["text"] == text_of(30)
        answer = api.get(f"/amalgamations/{job}/texts?orphans=true&format=parquet")
        assert pq.read_table(io.BytesIO(answer.content)).num_rows == ROWS // 10

    @pytest.mark.parametrize("orphans", [False, True])
    def test_pages_go_on_after_a_row(self, api: TestClient, job: str, orphans: bool) -> None:
        seen: list[int] = []
        while True:
            page = {"after": seen[-1] if seen else -1, "limit": 999, "orphans": orphans}
            rows = lines(api.get(f"/amalgamations/{job}/texts", params=page))
            assert all(row["text"] == text_of(row["row"]) for row in rows)
            if not rows:
                break
            assert len(rows) <= 999
            seen += [row["row"] for row in rows]
        assert seen == list(range(0, ROWS, 10 if orphans else 1))

    def test_behind_the_end_there_is_nothing(self, api: TestClient, job: str) -> None:
        assert api.get(f"/amalgamations/{job}/texts?after={2**53 - 1}").content == b""
        empty = api.get(f"/amalgamations/{job}/texts?after={ROWS}&format=parquet").content
        read = pq.read_table(io.BytesIO(empty))
        assert (read.num_rows, read.column_names) == (0, ["row", "text", *table(2).column_names[1:]])

    @pytest.mark.parametrize("query", ["limit=0", "after=-2", "format=csv", "orphans=perhaps"])
    def test_other_parameters_are_refused(self, api: TestClient, job: str, query: str) -> None:
        assert api.get(f"/amalgamations/{job}/texts?{query}").status_code == 422

    def test_without_its_corpus_the_figures_stay(
        self, api: TestClient, backend: Backend, job: str, body: dict[str, Any]
    ) -> None:
        with backend.database.write() as session:
            session.get_one(Corpus, body["corpus"]).expires_at = now()  # type: ignore[assignment]
        rows = lines(api.get(f"/amalgamations/{job}/texts?limit=2"))
        assert [(row["text"], row["label"]) for row in rows] == [(None, "refund"), (None, "late")]
        assert api.delete(f"/corpora/{body['corpus']}").status_code == 204
        assert lines(api.get(f"/amalgamations/{job}/texts?limit=2")) == rows

    def test_there_is_none_before_the_job_has_succeeded_or_after_its_student_is_deleted(
        self, api: TestClient, job: str, body: dict[str, Any]
    ) -> None:
        queued = api.post("/amalgamations", json=body).json()["id"]
        student = api.get(f"/amalgamations/{job}").json()["student_id"]
        assert api.delete(f"/students/{student}").status_code == 204
        for job_id, why in ((queued, "the job is queued"), (job, "its student was deleted")):
            answer = api.get(f"/amalgamations/{job_id}/texts")
            assert (answer.status_code, answer.json()["code"]) == (404, "texts_not_available")
            assert why in answer.json()["detail"]

    def test_without_a_student_the_job_itself_has_the_table_until_it_is_deleted(
        self, api: TestClient, backend: Backend, body: dict[str, Any], advance: Callable[..., None]
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        prefix = f"jobs/{job_id}/attempt-1"
        put_folder(backend, prefix, {"texts.parquet": parquet(table(10), 4)})
        advance(job_id, Status.SUCCEEDED, text_table=f"{prefix}/texts.parquet", report=REPORT)
        assert api.get(f"/amalgamations/{job_id}").json()["student_id"] is None
        rows = lines(api.get(f"/amalgamations/{job_id}/texts?after=3&limit=2"))
        assert [(row["row"], row["label"]) for row in rows] == [(4, "refund"), (5, "late")]
        read = pq.read_table(io.BytesIO(api.get(f"/amalgamations/{job_id}/texts?format=parquet").content))
        assert read.drop_columns(["text"]).equals(table(10))
        assert api.get(f"/amalgamations/{job_id}/metrics").json() == {"steps": [], "series": {}}
        assert api.get(f"/amalgamations/{job_id}/checkpoints").json()["data"] == []
        refused = api.post(f"/amalgamations/{job_id}/resume").json()
        assert (refused["code"], "makes no student" in refused["detail"]) == ("job_ended", True)
        assert api.delete(f"/amalgamations/{job_id}").status_code == 204
        assert not backend.store.exists(prefix)
        assert api.get(f"/amalgamations/{job_id}/texts").status_code == 404

    def test_a_table_that_is_gone_is_a_503_without_a_path(
        self, api: TestClient, backend: Backend, job: str
    ) -> None:
        backend.store.delete("students")
        answer = api.get(f"/amalgamations/{job}/texts")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
        assert "attempt" not in answer.text

    def test_memory_holds_a_batch_and_not_the_table(self, backend: Backend, job: str) -> None:
        report = text_report.find(backend, "default", job)
        sizes = [len(piece.splitlines()) for piece in text_report.as_json_lines(report.batches(ALL))]
        assert sum(sizes) == ROWS
        assert max(sizes) <= 2048
        pieces = list(text_report.as_parquet(report.schema(), report.batches(ALL)))
        assert len(pieces) == 4, "a row group each, and the end"


ALL = text_report.Selection()


class TestReport:
    def test_is_whole_at_its_own_address_and_brief_at_the_job(self, api: TestClient, job: str) -> None:
        answer = api.get(f"/amalgamations/{job}/report")
        assert answer.json() == REPORT
        again = api.get(f"/amalgamations/{job}/report", headers={"If-None-Match": answer.headers["etag"]})
        assert again.status_code == 304
        shown = api.get(f"/amalgamations/{job}").json()["report"]["evaluation"]
        accuracy = {"accuracy": 0.9}
        assert shown == {"texts": 3, "student": accuracy, "teachers": [accuracy], "ensemble": accuracy}

    def test_is_not_there_before_the_job_has_succeeded(self, api: TestClient, body: dict[str, Any]) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        answer = api.get(f"/amalgamations/{job_id}/report")
        assert (answer.status_code, answer.json()["code"]) == (404, "report_not_available")


class TestMetrics:
    def test_are_series_of_the_steps_and_empty_at_first(
        self, api: TestClient, backend: Backend, body: dict[str, Any]
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        assert api.get(f"/amalgamations/{job_id}/metrics").json() == {"steps": [], "series": {}}
        self._tell(backend, job_id, (1, 0.9), (2, 0.8))
        answer = api.get(f"/amalgamations/{job_id}/metrics")
        assert answer.json() == {"steps": [1, 2], "series": {"loss": [0.9, 0.8]}}
        known = {"If-None-Match": answer.headers["etag"]}
        assert api.get(f"/amalgamations/{job_id}/metrics", headers=known).status_code == 304
        self._tell(backend, job_id, (3, 0.7))
        assert api.get(f"/amalgamations/{job_id}/metrics", headers=known).json()["steps"] == [1, 2, 3]

    def test_steps_that_are_repeated_from_a_checkpoint_are_there_once(
        self, api: TestClient, backend: Backend, body: dict[str, Any]
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        self._tell(backend, job_id, (1, 0.9), (2, 0.8), (3, 0.7), (2, 0.81))
        assert api.get(f"/amalgamations/{job_id}/metrics").json() == {
            "steps": [1, 2],
            "series": {"loss": [0.9, 0.81]},
        }

    def _tell(self, backend: Backend, job_id: str, *points: tuple[int, float]) -> None:
        with backend.database.write() as session:
            if session.get_one(Amalgamation, job_id).status == Status.QUEUED:
                assert amalgamations.claim(session, job_id, worker="test", lease_seconds=60)
            for step, loss in points:
                point = {"step": step, "loss": loss}
                assert amalgamations.tell(session, job_id, 1, kind="metric", message="", data=point)


@on_sqlite
def test_unknown_and_foreign_jobs_are_404(api: TestClient, backend: Backend, job: str) -> None:
    with backend.database.write() as session:
        session.get_one(Amalgamation, job).owner = "other"
    for unknown in (job, new_id(Prefix.AMALGAMATION), "amg-1"):
        for what in ("report", "texts", "metrics"):
            answer = api.get(f"/amalgamations/{unknown}/{what}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
