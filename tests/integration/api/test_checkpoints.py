"""Checkpoints over HTTP: listed, downloaded, expired, and as teachers of other jobs."""

import hashlib
import io
import tarfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from app.client import MukaClient
from app.domain.identifiers import student_of
from app.domain.status import Status
from app.persistence import amalgamations
from app.services.backend import Backend
from app.services.sweeper import sweep
from app.settings import Settings
from tests.api_objects import add_checkpoint, add_corpus, add_model, add_student
from tests.jobs import add_job
from tests.live_service import live_service

Advance = Callable[..., None]
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def job_id(backend: Backend, advance: Advance) -> str:
    """A job in its training."""
    made = add_job(backend.database)
    advance(made, Status.RUNNING)
    return made


def _end(backend: Backend, job_id: str, to: Status, *, days_ago: float = 0) -> None:
    with backend.database.write() as session:
        job = amalgamations.change_status(session, job_id, to, "ended", only_from=(Status.RUNNING,))
        assert job is not None
        assert job.finished_at is not None
        job.finished_at -= timedelta(days=days_ago)


class TestLooking:
    def test_the_newest_comes_first_with_all_that_is_known(
        self, api: TestClient, backend: Backend, job_id: str
    ) -> None:
        ids = [add_checkpoint(backend, job_id, step) for step in (100, 200)]
        page = api.get(f"/amalgamations/{job_id}/checkpoints").json()
        newest = page["data"][0]
        assert [each["id"] for each in page["data"]] == ids[::-1] == [page["first_id"], page["last_id"]]
        assert newest["id"] == f"{student_of(job_id)}@step-200"
        told = [newest[key] for key in ("revision", "step", "total_steps", "loss", "expires_at")]
        assert told == ["step-200", 200, 900, 0.5, None]
        assert newest["epoch"] == pytest.approx(2 / 3)
        assert api.get(f"/amalgamations/{job_id}/checkpoints/step-200").json() == newest

    @pytest.mark.parametrize(
        ("order", "expected"), [("desc", [300, 200, 150, 100]), ("asc", [100, 150, 200, 300])]
    )
    def test_pages_follow_the_order_in_which_they_were_saved(
        self, api: TestClient, backend: Backend, job_id: str, order: str, expected: list[int]
    ) -> None:
        for step in (100, 150, 200, 300):
            add_checkpoint(backend, job_id, step)
        url, seen = f"/amalgamations/{job_id}/checkpoints?limit=3&order={order}", []
        while url:
            answer = api.get(url)
            seen += [each["step"] for each in answer.json()["data"]]
            assert answer.json()["has_more"] == ("next" in answer.links)
            url = answer.links.get("next", {}).get("url", "")
        assert seen == expected

    def test_behind_one_that_was_removed_meanwhile_come_those_of_earlier_steps(
        self, api: TestClient, backend: Backend, job_id: str
    ) -> None:
        for step in (100, 300):
            add_checkpoint(backend, job_id, step)
        after = f"{student_of(job_id)}@step-200"
        found = api.get(f"/amalgamations/{job_id}/checkpoints", params={"after": after}).json()
        assert [each["step"] for each in found["data"]] == [100]

    @on_sqlite
    @pytest.mark.parametrize("name", ["step-300", "200", "step-0", "step-00200", "main", "step-9999999999"])
    def test_what_is_none_is_not_found(
        self, api: TestClient, backend: Backend, job_id: str, name: str
    ) -> None:
        add_checkpoint(backend, job_id, 200)
        answer = api.get(f"/amalgamations/{job_id}/checkpoints/{name}/files")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")

    def test_when_its_job_has_ended_it_expires(self, api: TestClient, backend: Backend, job_id: str) -> None:
        add_checkpoint(backend, job_id, 200)
        _end(backend, job_id, Status.CANCELLED)
        url = f"/amalgamations/{job_id}"
        finished = api.get(url).json()["finished_at"]
        [shown] = api.get(f"{url}/checkpoints").json()["data"]
        assert shown["expires_at"][:10] > finished[:10]
        with backend.database.write() as session:
            row = amalgamations.find(session, job_id)
            assert row is not None
            assert row.finished_at is not None
            row.finished_at -= timedelta(days=7.1)
        assert api.get(f"{url}/checkpoints").json()["data"] == []
        assert api.get(f"{url}/checkpoints/step-200/download").status_code == 410
        assert [each.name for each in sweep(backend)] == [f"jobs/{job_id}"]
        assert api.get(f"{url}/checkpoints/step-200/download").status_code == 404


class TestDownload:
    def test_the_model_s_files_and_nothing_of_the_optimizer(
        self, api: TestClient, backend: Backend, job_id: str
    ) -> None:
        add_checkpoint(backend, job_id, 200)
        url = f"/amalgamations/{job_id}/checkpoints/step-200"
        files = {each["path"]: each for each in api.get(f"{url}/files").json()["data"]}
        assert set(files) == {"config.json", "model.safetensors", "tokenizer.json"}
        answer = api.get(f"{url}/files/model.safetensors")
        digest = hashlib.sha256(answer.content).hexdigest()
        assert (answer.headers["etag"], files["model.safetensors"]["sha256"]) == (f'"{digest}"', digest)
        for hidden in ("state.json", "optimizer.safetensors", "../200/state.json"):
            assert api.get(f"{url}/files/{hidden}").status_code == 404
        with tarfile.open(fileobj=io.BytesIO(api.get(f"{url}/download").content)) as archive:
            names = archive.getnames()
        assert names == [f"{student_of(job_id)}-step-200/{path}" for path in sorted(files)]
        head = api.head(f"{url}/download").headers
        assert int(head["content-length"]) > 0

    @on_sqlite
    def test_the_client_takes_its_id_like_a_student_s(
        self, settings: Settings, backend: Backend, job_id: str, tmp_path: Path
    ) -> None:
        reference = add_checkpoint(backend, job_id, 200)
        with live_service(settings) as service, MukaClient(str(service.base_url)) as muka:
            [found] = muka.amalgamations.get(job_id).checkpoints()
            assert found.id == reference
            folder = muka.students.download(found.id, tmp_path / "model")
        assert (folder / "model.safetensors").read_text() == f"weights of {job_id} at step 200"


class TestTeachers:
    def test_a_checkpoint_teaches_and_starts_and_is_held_meanwhile(
        self, api: TestClient, backend: Backend, job_id: str
    ) -> None:
        teacher, start = (add_checkpoint(backend, job_id, step) for step in (100, 200))
        body = {
            "teachers": [teacher, add_model(backend, ("late", "lost"))],
            "corpus": add_corpus(backend),
            "student": {"init_from": start},
        }
        answer = api.post("/amalgamations", json=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["teachers"][0]["object_id"] == teacher
        _end(backend, job_id, Status.FAILED, days_ago=8)
        assert api.delete(f"/amalgamations/{job_id}").json()["code"] == "in_use"
        list(sweep(backend))
        for step in (100, 200):
            assert backend.store.exists(f"jobs/{job_id}/attempt-1/checkpoints/{step}/model.safetensors")
        api.post(f"/amalgamations/{answer.json()['id']}/cancel")
        assert [each.name for each in sweep(backend)] == [f"jobs/{job_id}"]
        assert api.delete(f"/amalgamations/{job_id}").status_code == 204

    @on_sqlite
    @pytest.mark.parametrize("form", ["{student}@main", "students/{student}", "students/{student}@main"])
    def test_a_student_has_several_names(
        self, api: TestClient, backend: Backend, body: dict[str, Any], form: str
    ) -> None:
        student = add_student(backend)
        answer = api.post(
            "/amalgamations", json=body | {"teachers": [form.format(student=student), *body["teachers"]]}
        )
        assert answer.status_code == 202, answer.text
        first = answer.json()["teachers"][0]
        assert (first["source"], first["object_id"]) == ("student", student)
        assert api.delete(f"/students/{student}").json()["code"] == "in_use"

    @on_sqlite
    def test_one_that_is_gone_or_another_owner_s_is_not_there(
        self, api: TestClient, backend: Backend, body: dict[str, Any], job_id: str
    ) -> None:
        reference = add_checkpoint(backend, job_id, 200)
        _end(backend, job_id, Status.FAILED, days_ago=8)
        for name in (reference, reference.replace("200", "300")):
            answer = api.post("/amalgamations", json=body | {"teachers": [name, *body["teachers"]]})
            [fault] = answer.json()["errors"]
            assert (fault["pointer"], fault["code"]) == ("/teachers/0/model", "teacher_not_found")
