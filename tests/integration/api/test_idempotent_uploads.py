"""`Idempotency-Key` on uploads: the same file under the same key is one request, whatever its answer met."""

import threading
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from app.main import create_app
from app.persistence.tables import Corpus, IdempotencyKey
from app.persistence.time import now
from app.services.backend import Backend
from app.settings import Settings
from tests.unit.app.ingestion.archives import model_files, tar

TEXTS = b"where is my parcel\nI was charged twice\n"
ONCE = {"Idempotency-Key": "upload-1"}


def _corpus(api: TestClient, content: bytes = TEXTS, **parameters: str) -> Any:
    return api.post("/corpora", params={"filename": "inbox.txt"} | parameters, content=content, headers=ONCE)


def _model(api: TestClient, weights: bytes | None = None, name: str = "model.tar") -> Any:
    files = model_files() | ({"special_tokens_map.json": weights} if weights else {})
    return api.post("/models", files={"file": (name, tar(files))}, headers=ONCE)


@pytest.mark.parametrize("upload", [_corpus, _model])
def test_the_stored_answer_is_given_again(api: TestClient, upload: Any) -> None:
    first, again = upload(api), upload(api)
    assert (first.status_code, again.status_code) == (201, 201), again.text
    assert first.json() == again.json()
    assert first.headers["location"] == again.headers["location"]
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")


def test_without_a_key_the_same_content_is_found_and_nothing_is_replayed(api: TestClient) -> None:
    _corpus(api)
    answer = api.post("/corpora?filename=inbox.txt", content=TEXTS)
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (200, False)


@pytest.mark.parametrize("other", [{"content": b"other\ntexts\n"}, {"name": "renamed"}])
def test_another_corpus_under_the_same_key_is_refused(
    api: TestClient, backend: Backend, other: dict[str, Any]
) -> None:
    _corpus(api)
    answer = _corpus(api, **other)
    assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")
    assert "send a fresh key" in answer.json()["detail"]
    with backend.database.read() as session:
        assert session.scalar(select(func.count(Corpus.id))) == 1


def test_another_model_under_the_same_key_is_refused(api: TestClient) -> None:
    _model(api)
    for other in ({"weights": b"{}"}, {"name": "renamed.tar"}):
        assert _model(api, **other).json()["code"] == "idempotency_key_reused"


def test_one_key_may_stand_for_a_corpus_and_a_model(api: TestClient) -> None:
    assert (_corpus(api).status_code, _model(api).status_code) == (201, 201)


def test_what_was_refused_may_be_sent_right_under_the_same_key(api: TestClient) -> None:
    assert _corpus(api, b"\n\n").status_code == 422
    assert _corpus(api).status_code == 201


def test_the_answer_outlives_the_object(api: TestClient) -> None:
    """It is the answer to that request; whether the object is still there is another question."""
    first = _corpus(api)
    assert api.delete(first.headers["location"]).status_code == 204
    assert _corpus(api).json() == first.json()


def test_the_status_of_the_answer_is_kept(api: TestClient) -> None:
    api.post("/corpora?filename=inbox.txt", content=TEXTS)
    first, again = _corpus(api), _corpus(api)
    assert (first.status_code, again.status_code) == (200, 200)
    assert ("idempotency-replayed" in first.headers, "idempotency-replayed" in again.headers) == (False, True)


def test_after_a_day_the_key_is_as_good_as_new(api: TestClient, backend: Backend) -> None:
    _corpus(api)
    with backend.database.write() as session:
        session.execute(update(IdempotencyKey).values(created_at=now(-24 * 3600)))
    answer = _corpus(api, b"other\ntexts\n")
    assert (answer.status_code, "idempotency-replayed" in answer.headers) == (201, False)


@pytest.mark.parametrize("key", ["", "x" * 256, "caf\u00e9"])
def test_a_key_that_is_none_is_refused_and_nothing_stored(
    api: TestClient, backend: Backend, key: str
) -> None:
    headers: Any = {"Idempotency-Key": key.encode("latin-1")}
    answer = api.post("/corpora?filename=inbox.txt", content=TEXTS, headers=headers)
    assert answer.status_code == 422
    with backend.database.read() as session:
        assert session.scalar(select(func.count(Corpus.id))) == 0


def test_racers_under_one_key_get_one_answer_and_leave_one_file(
    settings: Settings, backend: Backend, tmp_path: Path
) -> None:
    """The same name, content and key, eight times at once; and one that sends something else."""
    answers: list[Any] = []
    start = threading.Barrier(9)

    def race(content: bytes) -> None:
        start.wait(30)
        answers.append(_corpus(api, content))

    with TestClient(create_app(settings.model_copy(update={"max_uploads": 20}))) as api:
        racers = [threading.Thread(target=race, args=(TEXTS,)) for _ in range(8)]
        racers.append(threading.Thread(target=race, args=(b"other\ntexts\n",)))
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join()
    accepted = {answer.json()["id"] for answer in answers if answer.status_code == 201}
    refused = [answer.json()["code"] for answer in answers if answer.status_code != 201]
    assert len(accepted) == 1
    assert set(refused) <= {"idempotency_key_reused", "request_in_flight"}
    assert sum("idempotency-replayed" not in answer.headers for answer in answers) == 1 + len(refused)
    assert {"retry-after" in a.headers for a in answers if a.status_code == 409} <= {True}
    assert [path.stem for path in (tmp_path / "store" / "corpora").iterdir()] == list(accepted)


def test_every_post_that_creates_takes_a_key(api: TestClient) -> None:
    """A new route cannot forget: 201 and 202 are for what an impatient client would otherwise do twice."""
    creating = {
        f"{path} {operation['operationId']}": {p["name"] for p in operation.get("parameters", ())}
        for path, operations in api.get("/openapi.json").json()["paths"].items()
        for method, operation in operations.items()
        if method == "post" and {"201", "202"} & operation["responses"].keys()
    }
    without = {name for name, parameters in creating.items() if "Idempotency-Key" not in parameters}
    assert len(creating) > 4
    assert without <= REPEATABLE, "let them take a key, or say here why repeating them does no harm"


REPEATABLE = {
    "/amalgamations/{job_id}/cancel cancel_amalgamation",  # cancelled twice is cancelled
    "/amalgamations/{job_id}/resume resume_amalgamation",  # one that is queued again is not resumed again
    "/webhooks/{webhook_id}/test test_webhook",  # one more test message
}
