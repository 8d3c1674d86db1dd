import time
from typing import Any

import pytest

from app.client import (
    Job,
    JobCancelledError,
    JobFailedError,
    MukaClient,
    MukaClientError,
    WaitTimeoutError,
)
from tests.unit.app.client.scripted_server import DROP, Reply, ScriptedServer

URL = "/amalgamations/amg-1"


def job_of(status: str, **fields: Any) -> Reply:
    etag = f'"{status}-{fields.get("stage")}"'
    return Reply.of({"id": "amg-1", "status": status, **fields}, ETag=etag, Retry_After="0")


def test_wait_ends_with_the_job_and_tells_on_the_way(server: ScriptedServer, client: MukaClient) -> None:
    server.on(
        "GET",
        URL,
        job_of("queued"),
        job_of("running", stage="scoring", progress={"fraction": 0.4}),
        job_of("running", stage="a_stage_of_the_future"),
        job_of("succeeded", student_id="stu-1"),
    )
    told: list[tuple[str, str | None]] = []
    job = client.amalgamations.get("amg-1")
    job.wait(on_progress=lambda now: told.append((now.status, now.stage)), poll_seconds=0)
    assert told == [
        ("queued", None),
        ("running", "scoring"),
        ("running", "a_stage_of_the_future"),
        ("succeeded", None),
    ]


def test_wait_asks_by_long_poll_and_with_the_last_etag(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("queued"), job_of("running"), Reply(304), job_of("succeeded"))
    client.amalgamations.get("amg-1").wait(poll_seconds=0)
    assert [request.query for request in server.requests] == ["", "wait=30", "wait=30", "wait=30"]
    assert [request.headers.get("If-None-Match") for request in server.requests] == [
        None,
        None,
        '"running-None"',
        '"running-None"',
    ]


def test_a_service_that_asks_for_patience_gets_it(server: ScriptedServer, client: MukaClient) -> None:
    slow = Reply.of({"id": "amg-1", "status": "running"}, Retry_After="1")
    server.on("GET", URL, job_of("queued"), slow, job_of("succeeded"))
    started = time.monotonic()
    client.amalgamations.get("amg-1").wait()
    assert time.monotonic() - started >= 1


def test_wait_outlives_a_restart_of_the_service(server: ScriptedServer) -> None:
    server.on("GET", URL, job_of("running"), *[DROP] * 3, job_of("succeeded"))
    with MukaClient(server.url, retries=0) as client:
        assert client.amalgamations.get("amg-1").wait(poll_seconds=0).status == "succeeded"


def test_a_failed_job_raises_with_code_message_and_hint(server: ScriptedServer, client: MukaClient) -> None:
    failure = {"code": "diverged", "message": "the loss is NaN", "hint": "lower learning_rate"}
    server.on("GET", URL, job_of("failed", failure=failure))
    with pytest.raises(JobFailedError) as caught:
        client.amalgamations.get("amg-1").wait()
    assert (caught.value.code, caught.value.hint) == ("diverged", "lower learning_rate")
    assert str(caught.value) == "amg-1 failed (diverged): the loss is NaN\n  lower learning_rate"


def test_a_cancelled_job_raises(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("cancelling"), job_of("cancelled"))
    with pytest.raises(JobCancelledError, match="muka resume amg-1"):
        client.amalgamations.get("amg-1").wait(poll_seconds=0)


def test_wait_gives_up_at_the_timeout(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("running"))
    started = time.monotonic()
    with pytest.raises(WaitTimeoutError, match="still running; it goes on"):
        client.amalgamations.get("amg-1").wait(timeout=0.3, poll_seconds=0.1)
    assert time.monotonic() - started < 10


def test_the_student_of_a_job_that_has_not_ended_is_an_error(
    server: ScriptedServer, client: MukaClient
) -> None:
    server.on("GET", URL, job_of("running"))
    with pytest.raises(MukaClientError, match=r"call wait\(\) first"):
        client.amalgamations.get("amg-1").student()


def test_the_student_is_fetched_by_the_jobs_id_of_it(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("succeeded", student_id="stu-1"))
    server.on("GET", "/students/stu-1", Reply.of({"id": "stu-1", "labels": ["refund", "invoice"]}))
    assert client.amalgamations.get("amg-1").student().labels == ["refund", "invoice"]


def test_a_job_that_made_no_student_says_where_its_answers_are(
    server: ScriptedServer, client: MukaClient
) -> None:
    server.on("GET", URL, job_of("running"), job_of("succeeded", student_id=None))
    job = client.amalgamations.get("amg-1").wait(poll_seconds=0)
    with pytest.raises(MukaClientError, match=r"amg-1 trained no student.*amalgamations\.texts"):
        job.student()


def test_cancel_updates_the_job(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("running"))
    server.on("POST", f"{URL}/cancel", job_of("cancelling"))
    job: Job = client.amalgamations.get("amg-1").cancel()
    assert job.status == "cancelling"


def test_events_are_read_page_by_page(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, job_of("running"))
    first = {"data": [{"sequence": 4}, {"sequence": 5}], "has_more": True, "last_id": 5}
    last = {"data": [{"sequence": 6, "type": "stage"}], "has_more": False, "last_id": 6}
    server.on("GET", f"{URL}/events", Reply.of(first), Reply.of(last))
    events = list(client.amalgamations.get("amg-1").events(after=3))
    assert [event.sequence for event in events] == [4, 5, 6]
    assert [r.query for r in server.seen("GET", f"{URL}/events")] == [
        "after=3&limit=100",
        "after=5&limit=100",
    ]
