"""What generated requests have found (make test-contract), each as a request of its own."""

import re
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.services.backend import Backend
from tests.api_objects import add_model, add_student, model_files
from tests.jobs import add_job

Json = dict[str, Any]


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """What these tests say does not depend on the database."""
    return sqlite_url


@pytest.fixture
def document(api: TestClient) -> Json:
    made: Json = api.get("/openapi.json").json()
    return made


def test_the_address_of_plans_allows_post_only_although_it_looks_like_a_jobs(api: TestClient) -> None:
    answer = api.options("/amalgamations/plan")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize("every", ["never", "", 0, -1, 2.5, []])
def test_a_wrong_interval_of_checkpoints_is_one_fault_with_a_pointer_into_the_body(
    api: TestClient, backend: Backend, every: object
) -> None:
    teachers = [add_model(backend, labels) for labels in (("a", "b"), ("c", "d"))]
    recipe = {"teachers": teachers, "corpus": {"texts": ["one", "two"]}, "checkpoints": {"every": every}}
    faults = api.post("/amalgamations", json=recipe).json()["errors"]
    assert [fault["pointer"] for fault in faults] == ["/checkpoints/every"]


@pytest.mark.parametrize("value", [0, 1, "false", None])
def test_keep_best_is_a_boolean(api: TestClient, backend: Backend, value: object) -> None:
    job_id = add_job(backend.database)
    answer = api.post(f"/amalgamations/{job_id}/cancel", json={"keep_best": value})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/keep_best")
    assert api.get(f"/amalgamations/{job_id}").json()["status"] == "queued"


def test_behind_any_checkpoint_there_is_a_page(api: TestClient, backend: Backend) -> None:
    after = {"after": f"stu-{'7' * 32}@step-933707925"}
    page = api.get(f"/amalgamations/{add_job(backend.database)}/checkpoints", params=after)
    assert (page.status_code, page.json()["data"]) == (200, [])


@pytest.mark.parametrize("text", ["", " \n", "\x1c\u00a0", "a\0b"])
def test_texts_that_nobody_classifies_are_invalid_by_the_document_too(
    api: TestClient, backend: Backend, document: Json, text: str
) -> None:
    texts = document["components"]["schemas"]["PredictionRequest"]["properties"]["texts"]
    assert not re.search(texts["items"]["pattern"], text)
    assert re.search(texts["items"]["pattern"], "where is\nmy parcel?")
    answer = api.post(f"/students/{add_student(backend)}/predictions", json={"texts": [text]})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/texts/0")


def test_every_file_has_a_media_type_that_the_document_names(
    api: TestClient, backend: Backend, document: Json
) -> None:
    files = model_files(("a", "b")) | {
        "README.md": b"# A student",
        "vocab.txt": b"[PAD]",
        "spiece.model": b"1",
    }
    student = add_student(backend, files)
    routes = {f"files/{name}": "files/{path}" for name in files} | {"download": "download"}
    for path, route in routes.items():
        for headers in ({}, {"Range": "bytes=0-0"}):
            answer = api.get(f"/students/{student}/{path}", headers=headers)
            operation = document["paths"][f"/students/{{student_id}}/{route}"]["get"]
            declared = operation["responses"][str(answer.status_code)]["content"]
            assert answer.headers["content-type"].partition(";")[0] in declared, path
