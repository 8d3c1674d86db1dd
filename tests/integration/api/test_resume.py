"""`POST /amalgamations/{id}/resume` and `keep_best`: who leaves an end, what is told, who comes first."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.client import ConflictError, MukaClient
from app.domain.failure import failure
from app.domain.status import FailureCode, Status
from app.persistence import amalgamations
from app.services.backend import Backend
from app.services.resuming import resume
from app.services.sweeper import sweep
from app.settings import Settings
from tests.api_objects import add_checkpoint, add_student
from tests.integration.api.test_live_events import SSE
from tests.jobs import OWNER, add_corpus, add_job, job_of, messages_of
from tests.live_service import live_service

Advance = Callable[..., None]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
FAILURE = failure(FailureCode.TIMEOUT, "it ran too long", stage="training", hint="resume it")


@pytest.fixture
def job_id(backend: Backend) -> str:
    """A queued job."""
    corpus_id = add_corpus(backend.database, backend.store, ["a text"])
    return add_job(backend.database, corpus_id=corpus_id)


@pytest.fixture
def failed(job_id: str, advance: Advance) -> str:
    advance(job_id, Status.FAILED, failure=FAILURE)
    return job_id


def _refused(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


class TestResume:
    def test_a_failed_job_is_queued_again_and_its_story_goes_on(
        self, api: TestClient, backend: Backend, failed: str
    ) -> None:
        add_checkpoint(backend, failed, 200)
        answer = api.post(f"/amalgamations/{failed}/resume")
        assert (answer.status_code, answer.headers["retry-after"]) == (202, "2")
        job = answer.json()
        assert (job["status"], job["attempt"], job["failure"], job["finished_at"]) == (
            *("queued", 1),
            *(None, None),
        )
        assert [step["status"] for step in job["transitions"]] == ["queued", "running", "failed", "queued"]
        last = api.get(f"/amalgamations/{failed}/events").json()["data"][-1]
        assert (last["sequence"], last["data"]["step"]) == (4, 200)
        assert last["message"] == "resumed by the user; the training goes on from step 200"

    def test_lost_workers_and_the_time_are_counted_anew_and_attempts_go_on(
        self, api: TestClient, backend: Backend, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.FAILED, failure=FAILURE, losses=3)
        api.post(f"/amalgamations/{job_id}/resume")
        row = job_of(backend.database, job_id)
        assert (row.losses, row.started_at, row.attempt) == (0, None, 1)
        with backend.database.write() as session:
            claimed = amalgamations.claim(session, job_id, worker="w", lease_seconds=60)
        assert claimed is not None
        assert claimed.attempt == 2

    @on_sqlite
    def test_what_has_not_failed_nor_was_cancelled_cannot_be_resumed(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        resume = f"/amalgamations/{job_id}/resume"
        assert _refused(api.post(resume)) == (409, "job_live")
        advance(job_id, Status.SUCCEEDED)
        assert _refused(api.post(resume)) == (409, "job_ended")
        assert _refused(api.post("/amalgamations/amg-1/resume")) == (404, "not_found")

    @on_sqlite
    def test_what_it_needs_and_is_gone_is_named(
        self, api: TestClient, backend: Backend, body: dict[str, Any], advance: Advance
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        advance(job_id, Status.FAILED, failure=FAILURE)
        assert api.delete(f"/models/{body['teachers'][1]}").status_code == 204
        assert api.delete(f"/corpora/{body['corpus']}").status_code == 204
        answer = api.post(f"/amalgamations/{job_id}/resume")
        assert _refused(answer) == (409, "inputs_missing")
        assert [each["pointer"] for each in answer.json()["errors"]] == ["/corpus", "/teachers/1/model"]
        assert job_of(backend.database, job_id).status == Status.FAILED

    @on_sqlite
    def test_a_full_queue_takes_no_resumed_job_either(
        self, settings: Settings, backend: Backend, failed: str
    ) -> None:
        add_job(backend.database)
        full = settings.model_copy(update={"max_queued_jobs": 1})
        with live_service(full) as client:
            assert _refused(client.post(f"/amalgamations/{failed}/resume")) == (429, "too_many_queued_jobs")

    def test_from_then_on_its_inputs_cannot_be_deleted(
        self, api: TestClient, body: dict[str, Any], advance: Advance
    ) -> None:
        job_id = api.post("/amalgamations", json=body).json()["id"]
        advance(job_id, Status.CANCELLED)
        api.post(f"/amalgamations/{job_id}/resume")
        assert _refused(api.delete(f"/corpora/{body['corpus']}")) == (409, "in_use")


class TestListeners:
    def test_a_stream_goes_on_behind_the_end_that_was_none(
        self, settings: Settings, failed: str, advance: Advance
    ) -> None:
        with (
            live_service(settings) as client,
            MukaClient(str(client.base_url)) as muka,
            ThreadPoolExecutor(2) as threads,
        ):
            assert [event.sequence for event in muka.amalgamations.stream(failed)] == [1, 2, 3]
            events = f"/amalgamations/{failed}/events"
            assert client.get(events, headers=SSE | {"Last-Event-ID": "3"}).status_code == 204
            muka.amalgamations.get(failed).resume()
            behind = threads.submit(lambda: list(muka.amalgamations.stream(failed, after=3)))
            whole = threads.submit(lambda: list(muka.amalgamations.stream(failed)))
            advance(failed, Status.SUCCEEDED)
            assert [event.sequence for event in behind.result(30)] == [4, 5, 6]
            assert [event.sequence for event in whole.result(30)] == [1, 2, 3, 4, 5, 6]

    @on_sqlite
    def test_who_waits_for_the_job_waits_for_its_second_end(
        self, settings: Settings, failed: str, advance: Advance
    ) -> None:
        with (
            live_service(settings) as client,
            MukaClient(str(client.base_url)) as muka,
            ThreadPoolExecutor(1) as threads,
        ):
            job = muka.amalgamations.get(failed).resume()
            waiting = threads.submit(job.wait)
            advance(failed, Status.SUCCEEDED)
            assert waiting.result(30).status == "succeeded"
            with pytest.raises(ConflictError, match="nothing to resume"):
                job.resume()


class TestRaces:
    """On SQLite the write lock lets one at a time; on Postgres the row's lock does."""

    def test_of_many_who_resume_at_once_one_does(
        self, settings: Settings, backend: Backend, failed: str
    ) -> None:
        with live_service(settings) as client, ThreadPoolExecutor(8) as threads:
            ask = lambda _: client.post(f"/amalgamations/{failed}/resume").status_code  # noqa: E731
            assert sorted(threads.map(ask, range(8))) == [202] + [409] * 7
        assert [step["status"] for step in job_of(backend.database, failed).transitions][3:] == ["queued"]

    def test_it_is_deleted_or_resumed_but_never_half(
        self, settings: Settings, backend: Backend, advance: Advance
    ) -> None:
        corpus_id = add_corpus(backend.database, backend.store, ["a text"])
        with live_service(settings) as client, ThreadPoolExecutor(2) as threads:
            for _ in range(5):
                job_id = add_job(backend.database, corpus_id=corpus_id)
                advance(job_id, Status.FAILED, failure=FAILURE)
                add_checkpoint(backend, job_id, 7)
                resumed = threads.submit(client.post, f"/amalgamations/{job_id}/resume")
                deleted = threads.submit(client.delete, f"/amalgamations/{job_id}")
                answers = resumed.result().status_code, deleted.result().status_code
                assert answers in {(202, 409), (404, 204)}
                assert backend.store.exists(f"jobs/{job_id}") == (answers == (202, 409))

    def test_the_sweeper_takes_the_checkpoints_before_or_never(self, backend: Backend, failed: str) -> None:
        add_checkpoint(backend, failed, 7)
        self._end_earlier(backend, failed, days=8)
        with ThreadPoolExecutor(2) as threads:
            with backend.database.write() as session:
                assert amalgamations.find(session, failed, lock=True)
                swept = threads.submit(lambda: [each.name for each in sweep(backend)])
                resumed = threads.submit(resume, backend, OWNER, failed)
            names, job = swept.result(30), resumed.result(30).row
        assert job.status == Status.QUEUED
        is_gone = f"jobs/{failed}" in names
        assert backend.store.exists(f"jobs/{failed}") != is_gone
        message = messages_of(backend.database, failed)[-1]
        assert ("there is no checkpoint (any more)" in message) == is_gone

    def _end_earlier(self, backend: Backend, job_id: str, days: float) -> None:
        with backend.database.write() as session:
            row = amalgamations.find(session, job_id)
            assert row is not None
            assert row.finished_at is not None
            row.finished_at -= timedelta(days=days)


class TestKeepBest:
    def test_a_queued_job_keeps_its_newest_checkpoint_and_cannot_be_resumed_until_that_is_deleted(
        self, api: TestClient, backend: Backend, failed: str
    ) -> None:
        add_checkpoint(backend, failed, 100)
        add_checkpoint(backend, failed, 200)
        api.post(f"/amalgamations/{failed}/resume")
        answer = api.post(f"/amalgamations/{failed}/cancel", json={"keep_best": True})
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        student_id = answer.json()["student_id"]
        student = api.get(f"/students/{student_id}").json()
        assert (student["amalgamation_id"], student["labels"]) == (failed, ["refund", "invoice", "late"])
        weights = api.get(f"/students/{student_id}/files/model.safetensors")
        assert weights.content == f"weights of {failed} at step 200".encode()
        assert api.get(f"/amalgamations/{failed}/texts").status_code == 404
        assert _refused(api.post(f"/amalgamations/{failed}/resume")) == (409, "student_kept")
        assert api.delete(f"/students/{student_id}").status_code == 204
        resumed = api.post(f"/amalgamations/{failed}/resume")
        assert (resumed.status_code, resumed.json()["student_id"]) == (202, None)
        assert api.get(f"/amalgamations/{failed}/checkpoints/step-200/files").status_code == 200

    def test_the_kept_student_outlives_its_job_and_every_sweep(
        self, api: TestClient, backend: Backend, failed: str
    ) -> None:
        add_checkpoint(backend, failed, 100)
        add_checkpoint(backend, failed, 200)
        api.post(f"/amalgamations/{failed}/resume")
        student_id = api.post(f"/amalgamations/{failed}/cancel", json={"keep_best": True}).json()[
            "student_id"
        ]
        assert api.delete(f"/amalgamations/{failed}").status_code == 204
        list(sweep(backend))
        left = {key.rsplit("/", 1)[1] for key in backend.store.list(f"jobs/{failed}")}
        assert left == {"config.json", "model.safetensors", "tokenizer.json"}
        assert api.get(f"/students/{student_id}/download").status_code == 200
        assert api.delete(f"/students/{student_id}").status_code == 204
        add_student(backend)  # a database that knows nothing is not believed
        assert [each.name for each in sweep(backend)] == [f"jobs/{failed}"]

    @on_sqlite
    def test_without_a_checkpoint_there_is_no_student_and_the_event_says_so(
        self, api: TestClient, job_id: str
    ) -> None:
        answer = api.post(f"/amalgamations/{job_id}/cancel", json={"keep_best": True})
        assert (answer.json()["status"], answer.json()["student_id"]) == ("cancelled", None)
        last = api.get(f"/amalgamations/{job_id}/events").json()["data"][-1]["message"]
        assert last.endswith("no step of the training was saved, so there is no student to keep")
        again = api.post(f"/amalgamations/{job_id}/cancel", json={"keep_best": True})
        assert _refused(again) == (409, "job_ended")
        assert api.post(f"/amalgamations/{job_id}/cancel").status_code == 200

    @on_sqlite
    def test_it_can_be_asked_for_while_the_worker_lets_go(
        self, api: TestClient, backend: Backend, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.RUNNING)
        assert api.post(f"/amalgamations/{job_id}/cancel").status_code == 202
        assert api.post(f"/amalgamations/{job_id}/cancel", json={"keep_best": True}).status_code == 202
        assert job_of(backend.database, job_id).keep_best

    @on_sqlite
    def test_an_unknown_wish_is_refused(self, api: TestClient, job_id: str) -> None:
        answer = api.post(f"/amalgamations/{job_id}/cancel", json={"keep": True})
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/keep")
