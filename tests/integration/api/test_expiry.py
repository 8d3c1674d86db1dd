"""Corpora whose time is over: gone for their users, unless a job that has not ended reads them."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from app.domain.access import Scope
from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.expired import KEPT_SECONDS
from app.persistence.tables import Corpus, ExpiredObject
from app.persistence.time import now
from app.services import keys
from app.services.backend import Backend
from app.services.leftovers import MARKS
from app.services.sweeper import sweep
from tests.jobs import add_job

LINES = b"my card was declined\nwhere is my parcel"


def _upload(api: TestClient) -> str:
    answer = api.post("/corpora?filename=inbox.txt", content=LINES, headers={"content-type": "text/plain"})
    assert answer.status_code in {200, 201}, answer.text
    return str(answer.json()["id"])


@pytest.fixture
def expired(api: TestClient, backend: Backend) -> str:
    """An uploaded corpus that was kept long enough."""
    corpus_id = _upload(api)
    with backend.database.write() as session:
        session.execute(update(Corpus).where(Corpus.id == corpus_id).values(expires_at=now(-1)))
    return corpus_id


@pytest.mark.parametrize("path", ["", "/preview"])
def test_it_is_gone_before_and_after_it_is_swept(
    api: TestClient, backend: Backend, expired: str, path: str
) -> None:
    answer = api.get(f"/corpora/{expired}{path}")
    assert answer.status_code == 410
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["title"]) == ("expired", "Gone")
    assert "upload the texts again" in answer.json()["detail"]
    assert [leftover.name for leftover in sweep(backend)] == [expired]
    assert api.get(f"/corpora/{expired}{path}").json()["code"] == "expired"
    assert api.delete(f"/corpora/{expired}").status_code == 410
    assert _upload(api) != expired, "the texts are sent again, as another corpus"


def test_nobody_else_learns_that_it_was_there(api: TestClient, backend: Backend, expired: str) -> None:
    list(sweep(backend))
    _, key = keys.create(backend.database, "stranger", [Scope.READ])
    answer = api.get(f"/corpora/{expired}", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 404


def test_after_months_nobody_knows_it_any_more(api: TestClient, backend: Backend, expired: str) -> None:
    list(sweep(backend))
    with backend.database.write() as session:
        session.execute(update(ExpiredObject).values(expired_at=now(-KEPT_SECONDS - 1)))
    assert [leftover.name for leftover in sweep(backend)] == [MARKS]
    assert api.get(f"/corpora/{expired}").status_code == 404


@pytest.mark.parametrize("is_swept", [False, True])
def test_a_new_job_cannot_name_it(
    api: TestClient, backend: Backend, body: dict[str, Any], expired: str, is_swept: bool
) -> None:
    if is_swept:
        list(sweep(backend))
    answer = api.post("/amalgamations", json=body | {"corpus": expired, "evaluation": {"corpus": expired}})
    assert answer.status_code == 422
    faults = {fault["pointer"]: fault["code"] for fault in answer.json()["errors"]}
    assert faults["/corpus"] == faults["/evaluation/corpus"] == "corpus_expired"


def test_it_is_kept_while_a_job_reads_it(api: TestClient, backend: Backend, expired: str) -> None:
    job_id = add_job(backend.database, corpus_id=expired)
    assert api.get(f"/corpora/{expired}").status_code == 200
    assert list(sweep(backend)) == []
    with backend.database.write() as session:
        amalgamations.change_status(session, job_id, Status.CANCELLED, "done", only_from=(Status.QUEUED,))
    assert api.get(f"/corpora/{expired}").status_code == 410


def test_the_same_upload_keeps_it_for_another_while(api: TestClient, backend: Backend, expired: str) -> None:
    assert _upload(api) == expired
    assert api.get(f"/corpora/{expired}").status_code == 200
    assert list(sweep(backend)) == []


def test_its_owner_may_delete_it_at_once(api: TestClient, expired: str) -> None:
    assert api.delete(f"/corpora/{expired}").status_code == 204
    assert api.get(f"/corpora/{expired}").status_code == 404
