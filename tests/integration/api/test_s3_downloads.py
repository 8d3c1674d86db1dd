"""Downloads of a service that keeps its files in a bucket: sent there for files, given archives as ever."""

import base64
import hashlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from app.client import MukaClient
from app.domain.status import Status
from app.main import create_app
from app.services.backend import Backend
from app.settings import Settings
from app.storage import ArtifactStore, configured_store
from tests.api_objects import add_checkpoint, add_student
from tests.integration.test_store import content_of
from tests.jobs import add_job
from tests.live_service import live_service
from tests.servers import S3Server
from tests.unit.app.ingestion.archives import model_files, tar

FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": bytes(range(256)) * 8,
    "pictures/für alle.svg": b"<svg/>",
    "empty.txt": b"",
}


@pytest.fixture(params=["sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """What these tests say does not depend on the database."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
def settings(settings: Settings, bucket_url: str, tmp_path: Path) -> Settings:
    in_bucket = {"store_dir": None, "store_url": bucket_url, "scratch_dir": tmp_path / "scratch"}
    return settings.model_copy(update=in_bucket)


@pytest.fixture
def store(settings: Settings) -> ArtifactStore:
    return configured_store(settings)


@pytest.fixture
def student(backend: Backend) -> str:
    return add_student(backend, FILES)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class TestFiles:
    def test_a_file_is_elsewhere_and_what_it_is_is_told_here(
        self, api: TestClient, student: str, s3_server: S3Server
    ) -> None:
        for path, content in FILES.items():
            answer = api.get(f"/students/{student}/files/{path}", follow_redirects=False)
            assert (answer.status_code, answer.content) == (302, b"")
            assert answer.headers["location"].startswith(f"{s3_server.server.url}/tests/")
            assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{sha256(content)}"'
            assert answer.headers["x-linked-size"] == str(len(content))
            assert answer.headers["cache-control"] == "no-store"
            assert httpx.get(answer.headers["location"]).content == content

    def test_ranges_are_answered_there(self, api: TestClient, student: str) -> None:
        url = f"/students/{student}/files/model.safetensors"
        headers = {"Range": "bytes=5-9"}
        answer = api.get(url, headers=headers, follow_redirects=False)
        part = httpx.get(answer.headers["location"], headers=headers)
        assert (part.status_code, part.content) == (206, FILES["model.safetensors"][5:10])
        behind = api.get(url, headers={"Range": "bytes=2048-"}, follow_redirects=False)
        assert (behind.status_code, behind.headers["content-range"]) == (416, "bytes */2048")

    def test_the_signature_is_for_this_file_only(self, api: TestClient, student: str) -> None:
        url = f"/students/{student}/files/config.json"
        signed = api.get(url, follow_redirects=False).headers["location"]
        assert "X-Amz-Expires=300&" in signed
        assert httpx.get(signed.replace("config.json", "model.safetensors")).status_code == 403
        assert httpx.get(signed.partition("?")[0]).status_code == 403
        assert httpx.put(signed, content=b"mine").status_code == 403

    def test_head_and_known_files_need_no_other_server(self, api: TestClient, student: str) -> None:
        url, content = f"/students/{student}/files/model.safetensors", FILES["model.safetensors"]
        head = api.head(url, follow_redirects=False)
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert head.headers["repr-digest"] == f"sha-256=:{digest}:"
        known = api.get(url, headers={"If-None-Match": head.headers["etag"]}, follow_redirects=False)
        assert known.status_code == 304

    def test_a_file_that_is_gone_is_a_503(self, api: TestClient, backend: Backend, student: str) -> None:
        backend.store.delete(f"students/{student}/attempt-1/config.json")
        answer = api.get(f"/students/{student}/files/config.json", follow_redirects=False)
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")

    def test_checkpoints_are_there_too(self, api: TestClient, backend: Backend) -> None:
        job_id = add_job(backend.database)
        add_checkpoint(backend, job_id, 100)
        url = f"/amalgamations/{job_id}/checkpoints/step-100/files/model.safetensors"
        signed = api.get(url, follow_redirects=False)
        assert signed.status_code == 302
        assert httpx.get(signed.headers["location"]).text == f"weights of {job_id} at step 100"


class TestArchive:
    def test_comes_through_the_service_also_in_pieces(self, api: TestClient, student: str) -> None:
        answer = api.get(f"/students/{student}/download", follow_redirects=False)
        assert answer.status_code == 200
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            unpacked = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        assert unpacked == {f"{student}/{path}": content for path, content in FILES.items()}
        part = api.get(f"/students/{student}/download", headers={"Range": "bytes=500-2999"})
        assert part.content == answer.content[500:3000]


class TestHubDoor:
    def test_tells_the_commit_on_the_way(self, api: TestClient, student: str) -> None:
        url = f"/hub/students/{student}/resolve/main/config.json"
        answer = api.get(url, follow_redirects=False)
        assert answer.status_code == 302
        assert answer.headers["x-linked-etag"] == f'"{sha256(FILES["config.json"])}"'
        assert answer.headers["x-linked-size"] == "8"
        assert len(answer.headers["x-repo-commit"]) == 40
        head = api.head(url, follow_redirects=False)
        assert head.headers["x-repo-commit"] == answer.headers["x-repo-commit"]


class TestMukaClient:
    @pytest.fixture
    def service(self, settings: Settings) -> Iterator[httpx.Client]:
        with live_service(settings.model_copy(update={"api_key": SecretStr("right")})) as client:
            yield client

    def test_downloads_with_a_key_and_goes_on(
        self, service: httpx.Client, student: str, tmp_path: Path
    ) -> None:
        with MukaClient(str(service.base_url), api_key="right") as client:
            (tmp_path / "student").mkdir()
            (tmp_path / "student" / "model.safetensors.part").write_bytes(FILES["model.safetensors"][:777])
            folder = client.students.download(student, tmp_path / "student")
        for path, content in FILES.items():
            assert (folder / path).read_bytes() == content


class TestUploads:
    def test_a_corpus_is_stored_previewed_and_deleted(
        self, api: TestClient, backend: Backend, settings: Settings
    ) -> None:
        made = api.post("/corpora", files={"file": ("a.txt", b"one\ntwo\nthree\n")}).json()
        preview = api.get(f"/corpora/{made['id']}/preview").json()
        assert [row["text"] for row in preview["data"]] == ["one", "two", "three"]
        assert list(backend.store.list("corpora")) == [f"corpora/{made['id']}.parquet"]
        assert api.delete(f"/corpora/{made['id']}").status_code == 204
        assert list(backend.store.list("corpora")) == []
        assert not (settings.data_dir / "store").exists()

    def test_a_model_is_stored_and_deleted(self, api: TestClient, backend: Backend) -> None:
        answer = api.post("/models", files={"file": ("m.tar", tar(model_files()))})
        model_id = answer.json()["id"]
        assert content_of(backend.store.local_path(f"models/{model_id}")) == model_files()
        assert api.delete(f"/models/{model_id}").status_code == 204
        assert list(backend.store.list("models")) == []


class TestReadiness:
    @pytest.mark.usefixtures("database")
    def test_says_so_when_the_server_refuses(
        self, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with TestClient(create_app(settings)) as api:
            assert api.get("/readyz").status_code == 200
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
        with TestClient(create_app(settings)) as api:
            answer = api.get("/readyz")
            assert (answer.status_code, "store" in answer.json()["detail"]) == (503, True)
            assert "wrong" not in answer.text


def test_a_job_s_checkpoints_go_when_their_student_goes(
    api: TestClient, backend: Backend, advance: Callable[..., None]
) -> None:
    job_id = add_job(backend.database)
    add_checkpoint(backend, job_id, 100)
    student = add_student(backend, FILES, job_id=job_id)
    advance(job_id, Status.SUCCEEDED, student_id=student)
    assert api.delete(f"/amalgamations/{job_id}").status_code == 204
    assert api.delete(f"/students/{student}").status_code == 204
    assert list(backend.store.children("students")) == []
