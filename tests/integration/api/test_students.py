"""Students over HTTP: shown, listed, deleted; files and the archive whole, in ranges, conditionally."""

import base64
import hashlib
import io
import json
import tarfile
from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from app.domain.identifiers import Prefix, new_id
from app.domain.status import Status
from app.services.backend import Backend
from tests.api_objects import add_corpus, add_model, add_student

# What these tests say does not depend on the database.
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

WEIGHTS = bytes(range(256)) * 8
FILES = {
    "config.json": b'{"a": 1}',
    "model.safetensors": WEIGHTS,
    "pictures/f\u00fcr alle.svg": b"<svg/>",
    "empty.txt": b"",
}


@pytest.fixture
def student(backend: Backend) -> str:
    return add_student(backend, FILES)


@pytest.fixture
def weights_url(student: str) -> str:
    return f"/students/{student}/files/model.safetensors"


class TestShow:
    def test_one_and_the_list(self, api: TestClient, backend: Backend, student: str) -> None:
        second = add_student(backend)
        add_student(backend, owner="other")
        shown = api.get(f"/students/{student}").json()
        assert shown["labels"] == ["refund", "invoice", "late"]
        assert shown["created_at"].endswith("Z")
        assert [each["id"] for each in api.get("/students").json()["data"]] == [second, student]
        page = api.get("/students?limit=1&order=asc")
        assert (page.json()["data"], page.json()["has_more"]) == ([shown], True)
        assert [each["id"] for each in api.get(page.links["next"]["url"]).json()["data"]] == [second]

    def test_unknown_malformed_and_foreign_ids_are_all_404(self, api: TestClient, backend: Backend) -> None:
        foreign = add_student(backend, owner="other")
        for unknown in (foreign, new_id(Prefix.STUDENT), "stu-1", "a%00b"):
            for suffix in ("", "/files", "/files/config.json", "/download"):
                answer = api.get(f"/students/{unknown}{suffix}")
                assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
            assert api.delete(f"/students/{unknown}").status_code == 404


class TestDelete:
    def test_takes_the_files_along(self, api: TestClient, backend: Backend, student: str) -> None:
        assert api.delete(f"/students/{student}").status_code == 204
        assert api.get(f"/students/{student}").status_code == 404
        assert not backend.store.exists(f"students/{student}")

    def test_is_a_conflict_while_a_live_job_needs_it(
        self, api: TestClient, backend: Backend, advance: Callable[..., None]
    ) -> None:
        teacher, start = add_student(backend), add_student(backend)
        body = {
            "teachers": [add_model(backend), teacher],
            "corpus": add_corpus(backend),
            "student": {"init_from": start},
        }
        job = api.post("/amalgamations", json=body).json()["id"]
        for needed in (teacher, start):
            answer = api.delete(f"/students/{needed}")
            assert (answer.status_code, answer.json()["code"]) == (409, "in_use")
            assert backend.store.exists(f"students/{needed}")
        advance(job, Status.CANCELLED)
        assert [api.delete(f"/students/{needed}").status_code for needed in (teacher, start)] == [204, 204]


@on_sqlite
class TestFiles:
    def test_the_manifest_has_path_size_and_sha256(self, api: TestClient, student: str) -> None:
        url = f"/students/{student}/files"
        answer = api.get(url)
        assert answer.json()["data"] == [
            {"path": path, "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in FILES.items()
        ]
        assert api.head(url).headers["etag"] == answer.headers["etag"]
        assert api.get(url, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304

    def test_every_file_arrives_with_its_checksums(self, api: TestClient, student: str) -> None:
        for path, content in FILES.items():
            answer = api.get(f"/students/{student}/files/{path}")
            sha256 = hashlib.sha256(content)
            assert (answer.status_code, answer.content) == (200, content)
            assert answer.headers["etag"] == f'"{sha256.hexdigest()}"'
            assert answer.headers["repr-digest"] == f"sha-256=:{base64.b64encode(sha256.digest()).decode()}:"
            assert answer.headers["content-length"] == str(len(content))
            assert answer.headers["accept-ranges"] == "bytes"
            assert "content-encoding" not in answer.headers

    def test_head_says_what_get_would(self, api: TestClient, weights_url: str) -> None:
        whole, head = api.get(weights_url), api.head(weights_url)
        assert (head.status_code, head.content) == (200, b"")
        ours = {"etag", "content-length", "repr-digest", "accept-ranges", "content-type"}
        assert {key: head.headers[key] for key in ours} == {key: whole.headers[key] for key in ours}

    OUTSIDE = (
        "nothing",
        "%2e%2e/model.safetensors",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e/%2e%2e/%2e%2e/muka.db",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "model.safetensors/",
        "%2e/config.json",
        "config.json%00",
        "pictures",
    )

    def test_only_the_manifest_can_be_named(self, api: TestClient, student: str) -> None:
        for path in self.OUTSIDE:
            answer = api.get(f"/students/{student}/files/{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path

    def test_a_file_that_is_gone_is_a_503_without_a_path(
        self, api: TestClient, backend: Backend, student: str, weights_url: str
    ) -> None:
        backend.store.delete(f"students/{student}/attempt-1/model.safetensors")
        for url in (weights_url, f"/students/{student}/download"):
            answer = api.get(url)
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_error")
            assert "attempt-1" not in answer.text


@on_sqlite
class TestRanges:
    ONE = (
        ("bytes=0-0", 0, 1),
        ("bytes=5-9", 5, 10),
        ("bytes=2040-", 2040, 2048),
        ("bytes=-3", 2045, 2048),
        ("bytes=-99999", 0, 2048),
        ("bytes=2000-99999", 2000, 2048),
        ("Bytes=1-2", 1, 3),
    )

    def test_one_range_is_a_206(self, api: TestClient, weights_url: str) -> None:
        for header, first, stop in self.ONE:
            answer = api.get(weights_url, headers={"Range": header})
            assert (answer.status_code, answer.content) == (206, WEIGHTS[first:stop])
            assert answer.headers["content-range"] == f"bytes {first}-{stop - 1}/2048"
            assert answer.headers["content-length"] == str(stop - first)

    def test_a_range_behind_the_end_is_a_416_that_says_the_size(
        self, api: TestClient, weights_url: str
    ) -> None:
        for header in ("bytes=2048-", "bytes=-0", "bytes=9999-10000"):
            answer = api.get(weights_url, headers={"Range": header})
            assert (answer.status_code, answer.json()["code"]) == (416, "range_not_satisfiable")
            assert answer.headers["content-range"] == "bytes */2048"

    def test_several_ranges_and_nonsense_get_the_whole(self, api: TestClient, weights_url: str) -> None:
        for header in ("bytes=0-1,4-5", "bytes=9-5", "bytes=-", "bytes=a-b", "lines=1-2", ""):
            answer = api.get(weights_url, headers={"Range": header})
            assert (answer.status_code, answer.content) == (200, WEIGHTS)

    def test_if_range_goes_on_only_with_the_same_file(self, api: TestClient, weights_url: str) -> None:
        etag = api.head(weights_url).headers["etag"]
        for validator, status in (
            (etag, 206),
            ('"other"', 200),
            (f"W/{etag}", 200),
            ("Mon, 23 Nov 2026 00:00:00 GMT", 200),
        ):
            answer = api.get(weights_url, headers={"Range": "bytes=5-", "If-Range": validator})
            assert answer.status_code == status

    def test_if_none_match_comes_before_the_range(self, api: TestClient, weights_url: str) -> None:
        etag = api.head(weights_url).headers["etag"]
        answer = api.get(weights_url, headers={"Range": "bytes=5-", "If-None-Match": etag})
        assert (answer.status_code, answer.content) == (304, b"")

    def test_an_empty_file_has_no_range(self, api: TestClient, student: str) -> None:
        url = f"/students/{student}/files/empty.txt"
        assert api.get(url, headers={"Range": "bytes=0-"}).status_code == 416


@on_sqlite
class TestArchive:
    def test_is_a_tar_of_all_files_under_the_students_name(self, api: TestClient, student: str) -> None:
        answer = api.get(f"/students/{student}/download")
        assert answer.headers["content-type"] == "application/x-tar"
        assert f'filename="{student}.tar"' in answer.headers["content-disposition"]
        assert answer.headers["content-length"] == str(len(answer.content))
        with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
            unpacked = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
        assert unpacked == {f"{student}/{path}": content for path, content in FILES.items()}

    def test_is_the_same_every_time_and_in_pieces(self, api: TestClient, student: str) -> None:
        url = f"/students/{student}/download"
        whole = api.get(url)
        assert api.get(url).content == whole.content
        assert api.head(url).headers["content-length"] == str(len(whole.content))
        pieces = []
        for start in range(0, len(whole.content), 700):
            headers = {"Range": f"bytes={start}-{start + 699}", "If-Range": whole.headers["etag"]}
            pieces.append(api.get(url, headers=headers).content)
        assert b"".join(pieces) == whole.content

    def test_long_names_and_sizes_over_8_gib_have_a_layout(
        self, api: TestClient, backend: Backend, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long_name = "/".join(["very-long-folder-name-" * 4] * 4) + "/\u00fc.json"
        student = add_student(backend, {long_name: b"{}"})
        with tarfile.open(fileobj=io.BytesIO(api.get(f"/students/{student}/download").content)) as tar:
            assert tar.getnames() == [f"{student}/{long_name}"]
        monkeypatch.setattr("app.services.downloads._is_whole", lambda *_: True)
        size = 9 << 30
        row = {"path": "big.bin", "size_bytes": size, "sha256": "0" * 64}
        _set_files(backend, student, [row])
        length = int(api.head(f"/students/{student}/download").headers["content-length"])
        assert length > size


def _set_files(backend: Backend, student: str, files: list[dict[str, object]]) -> None:
    from app.persistence.tables import Student  # noqa: PLC0415

    with backend.database.write() as session:
        session.get_one(Student, student).files = json.loads(json.dumps(files))
