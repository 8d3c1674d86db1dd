"""Jobs that exist: shown, polled, listed, cancelled, deleted; events and report."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

from app.domain.identifiers import Prefix, new_id, student_of
from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation
from app.services.backend import Backend
from tests.api_objects import put_folder
from tests.jobs import add_job

# What these tests say does not depend on the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

Json = dict[str, Any]
Advance = Callable[..., None]


@pytest.fixture
def job_id(backend: Backend) -> str:
    """A queued job."""
    return _tagged(backend, {"team": "support"})


def _tagged(backend: Backend, metadata: dict[str, str]) -> str:
    job_id = add_job(backend.database)
    with backend.database.write() as session:
        session.get_one(Amalgamation, job_id).user_metadata = metadata
    return job_id


class TestShow:
    def test_a_job_that_succeeded_shows_everything(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        student, report = student_of(job_id), {"accuracy": 0.9}
        progress = {"fraction": 1.0, "step": 3, "total_steps": 3, "updated_at": "2026-11-23T00:00:00+00:00"}
        advance(
            job_id,
            Status.SUCCEEDED,
            student_id=student,
            report=report,
            stage="publishing",
            progress=progress,
        )
        job = api.get(f"/amalgamations/{job_id}").json()
        assert (job["status"], job["student_id"], job["report"]) == ("succeeded", student, report)
        assert [each["status"] for each in job["transitions"]] == ["queued", "running", "succeeded"]
        assert [each["attempt"] for each in job["transitions"]] == [0, 1, 1]
        assert job["stage"] is None, "a stage is what a running job does"
        assert job["progress"]["updated_at"] == "2026-11-23T00:00:00Z"
        assert job["queue_position"] is None
        times = [job["created_at"], job["started_at"], job["finished_at"], job["heartbeat_at"]]
        assert all(each.endswith("Z") for each in times)
        assert job["expires_at"] is None
        assert job["metadata"] == {"team": "support"}

    def test_a_failure_has_code_hint_and_whether_to_try_again(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        failure = {"code": "out_of_memory", "message": "no memory", "stage": "training", "hint": "smaller"}
        advance(job_id, Status.FAILED, failure=failure)
        assert api.get(f"/amalgamations/{job_id}").json()["failure"] == failure | {"retryable": True}

    def test_the_place_in_the_queue(self, api: TestClient, job_id: str, backend: Backend) -> None:
        second = add_job(backend.database)
        assert api.get(f"/amalgamations/{second}").json()["queue_position"] == 1
        api.post(f"/amalgamations/{job_id}/cancel")
        assert api.get(f"/amalgamations/{second}").json()["queue_position"] == 0

    def test_unknown_malformed_and_foreign_ids_are_all_404(self, api: TestClient, backend: Backend) -> None:
        foreign = add_job(backend.database)
        with backend.database.write() as session:
            session.get_one(Amalgamation, foreign).owner = "other"
        for unknown in (foreign, new_id(Prefix.AMALGAMATION), "amg-1", "cor-1", "a%00b", "%F0%9F%98%80"):
            for method, suffix in (
                ("GET", ""),
                ("DELETE", ""),
                ("POST", "/cancel"),
                ("GET", "/events"),
                ("GET", "/report"),
            ):
                answer = api.request(method, f"/amalgamations/{unknown}{suffix}")
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@on_sqlite
class TestPolling:
    def test_an_unchanged_job_is_304_by_its_etag(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        url = f"/amalgamations/{job_id}"
        etag = api.get(url).headers["etag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = api.get(url, headers={"If-None-Match": known})
            assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
        advance(job_id, Status.RUNNING)
        assert api.get(url, headers={"If-None-Match": etag}).status_code == 200

    def test_retry_after_is_there_until_the_job_has_ended(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        assert api.get(f"/amalgamations/{job_id}").headers["retry-after"] == "2"
        advance(job_id, Status.FAILED, failure={"code": "internal", "message": "x"})
        assert "retry-after" not in api.get(f"/amalgamations/{job_id}").headers

    @pytest.fixture
    def soon(self) -> Iterator[Callable[..., None]]:
        timers: list[threading.Timer] = []

        def start(action: Callable[..., None], *arguments: Any, **named: Any) -> None:
            timers.append(threading.Timer(0.4, action, arguments, named))
            timers[-1].start()

        yield start
        for timer in timers:
            timer.join()

    def test_a_long_poll_returns_when_the_status_changes(
        self, api: TestClient, job_id: str, advance: Advance, soon: Callable[..., None]
    ) -> None:
        started = time.monotonic()
        soon(advance, job_id, Status.RUNNING)
        job = api.get(f"/amalgamations/{job_id}?wait=30").json()
        assert job["status"] == "running"
        assert 0.3 < time.monotonic() - started < 20

    def test_a_long_poll_returns_when_the_stage_changes_but_not_for_progress(
        self, api: TestClient, job_id: str, advance: Advance, backend: Backend, soon: Callable[..., None]
    ) -> None:
        advance(job_id, Status.RUNNING, stage="preparing")

        def write(**values: Any) -> None:
            with backend.database.write() as session:
                amalgamations.write_fenced(session, job_id, 1, values)

        soon(write, progress={"fraction": 0.5})
        started = time.monotonic()
        assert api.get(f"/amalgamations/{job_id}?wait=1.5").json()["progress"]["fraction"] == 0.5
        assert time.monotonic() - started >= 1.4
        soon(write, stage="scoring")
        assert api.get(f"/amalgamations/{job_id}?wait=30").json()["stage"] == "scoring"

    def test_a_long_poll_with_an_etag_returns_for_anything_new(
        self, api: TestClient, job_id: str, advance: Advance, backend: Backend
    ) -> None:
        advance(job_id, Status.RUNNING)
        etag = api.get(f"/amalgamations/{job_id}").headers["etag"]
        unchanged = api.get(f"/amalgamations/{job_id}?wait=0.6", headers={"If-None-Match": etag})
        assert unchanged.status_code == 304
        with backend.database.write() as session:
            amalgamations.write_fenced(session, job_id, 1, {"progress": {"fraction": 0.5}})
        started = time.monotonic()
        changed = api.get(f"/amalgamations/{job_id}?wait=30", headers={"If-None-Match": etag})
        assert changed.json()["progress"]["fraction"] == 0.5
        assert time.monotonic() - started < 20

    def test_a_long_poll_of_an_ended_job_returns_at_once(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.CANCELLED)
        started = time.monotonic()
        assert api.get(f"/amalgamations/{job_id}?wait=60").status_code == 200
        assert time.monotonic() - started < 20

    def test_more_than_a_minute_is_refused(self, api: TestClient, job_id: str) -> None:
        for wait in ("61", "-1", "nan", "inf", "long"):
            answer = api.get(f"/amalgamations/{job_id}?wait={wait}")
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["pointer"] == "query wait"


class TestList:
    def test_pages_follow_each_other_without_gap_or_repeat(self, api: TestClient, backend: Backend) -> None:
        made = [add_job(backend.database) for _ in range(5)]
        for order, expected in (("desc", made[::-1]), ("asc", made)):
            url, seen = f"/amalgamations?limit=2&order={order}", []
            while True:
                answer = api.get(url)
                page = answer.json()
                ids = [job["id"] for job in page["data"]]
                assert (page["first_id"], page["last_id"]) == (ids[0], ids[-1])
                seen += ids
                if not page["has_more"]:
                    assert "link" not in answer.headers
                    break
                assert answer.links["next"]["url"] == f"{url.split('&after', maxsplit=1)[0]}&after={ids[-1]}"
                url = answer.links["next"]["url"]
            assert seen == expected

    def test_an_empty_list_has_no_ids(self, api: TestClient) -> None:
        assert api.get("/amalgamations").json() == {
            "data": [],
            "has_more": False,
            "first_id": None,
            "last_id": None,
        }

    def test_filters_by_status_and_metadata(
        self, api: TestClient, backend: Backend, job_id: str, advance: Advance
    ) -> None:
        odd = {'a "key"': "it's", "x.y": "[0]", "ü": "%_"}
        other = _tagged(backend, {"team": "sales"} | odd)
        advance(other, Status.RUNNING)

        def ids(query: str) -> list[str]:
            answer = api.get(f"/amalgamations?{query}")
            assert answer.status_code == 200, answer.text
            return [job["id"] for job in answer.json()["data"]]

        assert ids("status=queued") == [job_id]
        assert ids("status=running") == [other]
        assert ids("metadata[team]=support") == [job_id]
        assert ids("metadata[team]=sales&status=queued") == []
        assert ids("metadata[none]=x") == []
        for key, value in odd.items():
            assert ids(f"metadata[{quote(key)}]={quote(value)}") == [other], key

    def test_other_owners_jobs_are_not_listed(self, api: TestClient, backend: Backend, job_id: str) -> None:
        with backend.database.write() as session:
            session.get_one(Amalgamation, job_id).owner = "other"
        assert api.get("/amalgamations").json()["data"] == []

    def test_parameters_out_of_range_are_refused_all_at_once(self, api: TestClient) -> None:
        answer = api.get("/amalgamations?limit=101&order=up&status=done&after=x")
        pointers = {fault["pointer"] for fault in answer.json()["errors"]}
        assert answer.status_code == 422
        assert pointers == {"query limit", "query order", "query status", "query after"}
        assert api.get("/amalgamations?metadata[a]=%00").status_code == 422


class TestCancel:
    def test_a_queued_job_ends_at_once(self, api: TestClient, job_id: str) -> None:
        answer = api.post(f"/amalgamations/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert answer.json()["finished_at"]

    def test_a_running_job_is_left_to_its_worker(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.RUNNING)
        answer = api.post(f"/amalgamations/{job_id}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (202, "cancelling")
        assert answer.headers["retry-after"] == "2"

    def test_repeating_it_changes_nothing(self, api: TestClient, backend: Backend, advance: Advance) -> None:
        for status, code in ((Status.QUEUED, 200), (Status.RUNNING, 202)):
            job_id = add_job(backend.database)
            if status == Status.RUNNING:
                advance(job_id, status)
            first = api.post(f"/amalgamations/{job_id}/cancel")
            again = api.post(f"/amalgamations/{job_id}/cancel")
            assert (first.status_code, again.status_code) == (code, code)
            assert again.json()["transitions"] == first.json()["transitions"]

    def test_a_job_that_ended_otherwise_is_a_conflict(
        self, api: TestClient, backend: Backend, advance: Advance
    ) -> None:
        for status in (Status.SUCCEEDED, Status.FAILED):
            job_id = add_job(backend.database)
            advance(job_id, status, failure={"code": "internal", "message": "x"})
            answer = api.post(f"/amalgamations/{job_id}/cancel")
            assert (answer.status_code, answer.json()["code"]) == (409, "job_ended")


class TestDelete:
    def test_an_ended_job_goes_with_its_events_and_working_files(
        self, api: TestClient, job_id: str, backend: Backend
    ) -> None:
        put_folder(backend, f"jobs/{job_id}/attempt-1", {"checkpoint": b"x"})
        api.post(f"/amalgamations/{job_id}/cancel")
        answer = api.delete(f"/amalgamations/{job_id}")
        assert (answer.status_code, answer.content) == (204, b"")
        assert api.get(f"/amalgamations/{job_id}").status_code == 404
        assert not backend.store.exists(f"jobs/{job_id}")

    def test_a_live_job_is_a_conflict(self, api: TestClient, job_id: str, advance: Advance) -> None:
        assert api.delete(f"/amalgamations/{job_id}").json()["code"] == "job_live"
        advance(job_id, Status.RUNNING)
        assert api.delete(f"/amalgamations/{job_id}").status_code == 409
        assert api.get(f"/amalgamations/{job_id}").status_code == 200


class TestEvents:
    def test_pages_go_on_after_a_sequence_number(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        advance(job_id, Status.CANCELLED)
        answer = api.get(f"/amalgamations/{job_id}/events?limit=2")
        first = answer.json()
        assert [event["sequence"] for event in first["data"]] == [1, 2]
        assert (first["has_more"], first["last_sequence"]) == (True, 2)
        assert first["data"][0]["type"] == "status"
        assert first["data"][0]["data"]["status"] == "queued"
        assert first["data"][0]["created_at"].endswith("Z")
        last = api.get(answer.links["next"]["url"])
        rest = last.json()
        assert [event["sequence"] for event in rest["data"]] == [3]
        assert (rest["has_more"], "link" in last.headers) == (False, False)
        none = api.get(f"/amalgamations/{job_id}/events?after=3").json()
        assert (none["data"], none["last_sequence"]) == ([], 3)

    def test_numbers_that_no_event_has_are_refused(self, api: TestClient, job_id: str) -> None:
        for query in ("after=-1", "after=x", "after=99999999999999999999", "limit=0", "limit=1001"):
            assert api.get(f"/amalgamations/{job_id}/events?{query}").status_code == 422


class TestReport:
    def test_is_there_when_the_job_has_succeeded(
        self, api: TestClient, job_id: str, advance: Advance
    ) -> None:
        answer = api.get(f"/amalgamations/{job_id}/report")
        assert (answer.status_code, answer.json()["code"]) == (404, "report_not_available")
        advance(job_id, Status.SUCCEEDED, report={"passes": 12})
        assert api.get(f"/amalgamations/{job_id}/report").json() == {"passes": 12}
