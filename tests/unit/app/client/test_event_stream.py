import pytest

from app.client import MukaClient, NotFoundError, ServiceError, UnexpectedAnswerError, event_stream
from tests.unit.app.client.scripted_server import DROP, Reply, ScriptedServer
from tests.unit.app.client.scripted_server import event_stream as stream_of

URL = "/amalgamations/amg-1/events"
ENDED = {"sequence": 3, "type": "status", "data": {"status": "succeeded"}}


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "PAUSE_SECONDS", 0.01)


def heard(client: MukaClient, after: int = 0) -> list[int]:
    return [event.sequence for event in client.amalgamations.stream("amg-1", after)]


def test_the_stream_ends_with_the_event_that_ends_the_job(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, stream_of({"sequence": 1}, {"sequence": 2, "message": "a\u2028b\x85c"}, ENDED))
    events = list(client.amalgamations.stream("amg-1"))
    assert [event.sequence for event in events] == [1, 2, 3]
    assert events[1].message == "a\u2028b\x85c", "line ends of Unicode are none of the protocol's"
    (request,) = server.requests
    assert (request.headers["Accept"], request.headers["Last-Event-ID"]) == ("text/event-stream", "0")


def test_a_cut_stream_goes_on_behind_the_last_whole_event(server: ScriptedServer, client: MukaClient) -> None:
    events = [{"sequence": 1}, {"sequence": 2, "message": "x" * 100}]
    whole = len(stream_of(events[0]).body)
    server.on(
        "GET", URL, stream_of(*events, cut_after=whole + 50), DROP, Reply(503), stream_of(events[1], ENDED)
    )
    assert heard(client) == [1, 2, 3]
    known = [request.headers["Last-Event-ID"] for request in server.requests]
    assert (known[0], set(known[1:])) == ("0", {"1"})


def test_a_stream_that_ends_early_is_asked_for_again(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, stream_of({"sequence": 1}), stream_of(), stream_of({"sequence": 2}, ENDED))
    assert heard(client) == [1, 2, 3]


def test_a_job_that_was_resumed_is_heard_beyond_its_first_end(
    server: ScriptedServer, client: MukaClient
) -> None:
    again = {"sequence": 4, "type": "status", "data": {"status": "queued"}}
    server.on("GET", URL, stream_of(ENDED, again), stream_of(ENDED | {"sequence": 5}))
    assert heard(client, after=2) == [3, 4, 5]


def test_204_is_the_end(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, Reply(204))
    assert heard(client, after=3) == []


def test_signs_of_life_are_told(server: ScriptedServer, client: MukaClient) -> None:
    body = b": ping\n\n: ping\r\n\r\n" + stream_of(ENDED).body
    server.on("GET", "/amalgamations/amg-1", Reply.of({"id": "amg-1", "status": "running"}))
    server.on("GET", URL, Reply(200, body, {"Content-Type": "text/event-stream"}))
    pings: list[None] = []
    assert len(list(client.amalgamations.get("amg-1").stream(on_idle=lambda: pings.append(None)))) == 1
    assert len(pings) == 2


def test_an_older_service_is_asked_for_pages(server: ScriptedServer, client: MukaClient) -> None:
    states = [Reply.of({"id": "amg-1", "status": status}) for status in ("running", "succeeded")]
    server.on("GET", "/amalgamations/amg-1", *states)
    empty = Reply.of({"data": [], "has_more": False})
    pages = [Reply.of({"data": [{"sequence": n}], "has_more": False}) for n in (1, 2)]
    server.on("GET", URL, empty, pages[0], empty, pages[1])
    assert heard(client) == [1, 2]
    assert server.seen("GET", URL)[-1].query == "after=1&limit=100"


def test_a_job_that_is_not_there_is_an_error_at_once(server: ScriptedServer, client: MukaClient) -> None:
    with pytest.raises(NotFoundError):
        heard(client)
    assert len(server.requests) == 1


def test_a_service_that_stays_away_is_an_error(
    server: ScriptedServer, client: MukaClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "OUTAGE_SECONDS", 0.05)
    server.on("GET", URL, Reply(503))
    with pytest.raises(ServiceError):
        heard(client)


def test_what_is_no_event_is_told_as_such(server: ScriptedServer, client: MukaClient) -> None:
    server.on("GET", URL, Reply(200, b"data: <html>\n\n", {"Content-Type": "text/event-stream"}))
    with pytest.raises(UnexpectedAnswerError, match="no event of muka"):
        heard(client)
