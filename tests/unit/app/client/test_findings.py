"""Report, metrics and texts of a job, over a connection that breaks."""

import json
from typing import Any

import pytest

from app.client import MukaClient, UnexpectedAnswerError
from tests.unit.app.client.scripted_server import DROP, Reply, Request, ScriptedServer

JOB = "amg-" + "0" * 32
URL = f"/amalgamations/{JOB}"


def _lines(*rows: Any) -> bytes:
    return "".join(
        json.dumps({"row": row, "text": f"{row}\u2028\x85", "orphan": True}, ensure_ascii=False) + "\n"
        for row in rows
    ).encode()


def test_texts_come_one_by_one_and_only_a_line_feed_ends_a_line(
    server: ScriptedServer, client: MukaClient
) -> None:
    server.on("GET", f"{URL}/texts", Reply(body=_lines(0, 1)))
    rows = list(client.amalgamations.texts(JOB))
    assert [(row.row, row.text) for row in rows] == [(0, "0\u2028\x85"), (1, "1\u2028\x85")]
    assert server.requests[0].query == "after=-1&orphans=false"
    assert server.requests[0].headers["Accept"] == "application/jsonl"


def test_texts_go_on_behind_the_last_one_when_the_connection_breaks(
    server: ScriptedServer, client: MukaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.client.findings.time.sleep", lambda _: None)
    first = _lines(*range(100))
    asked: list[str] = []

    def reply(request: Request) -> Reply:
        asked.append(request.query)
        start = int(request.query.partition("after=")[2].partition("&")[0]) + 1
        whole = _lines(*range(start, 100))
        return Reply(body=whole, cut_after=len(first) // 3 if len(asked) < 3 else None)

    server.on("GET", f"{URL}/texts", DROP, reply)
    assert [row.row for row in client.amalgamations.texts(JOB, orphans=True)] == list(range(100))
    assert len(asked) == 3
    assert "after=-1" not in asked[1]
    assert all("orphans=true" in query for query in asked)


def test_a_line_of_something_else_names_the_service(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", f"{URL}/texts", Reply(body=b"<html>\n"))
    with pytest.raises(UnexpectedAnswerError, match="no row of muka's table"):
        list(client.amalgamations.texts(JOB))


def test_report_and_metrics_are_read_whole(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", f"{URL}/report", Reply.of({"orphans": {"texts": 3}}))
    server.on("GET", f"{URL}/metrics", Reply.of({"steps": [1, 2], "series": {"loss": [0.5, None]}}))
    assert client.amalgamations.report(JOB) == {"orphans": {"texts": 3}}
    metrics = client.amalgamations.metrics(JOB)
    assert (metrics.steps, metrics.series) == ([1, 2], {"loss": [0.5, None]})
