import hashlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.client import (
    ChecksumError,
    ConnectionFailedError,
    DownloadProgress,
    MukaClient,
    UnexpectedAnswerError,
    UnsafePathError,
)
from tests.unit.app.client.scripted_server import DROP, Reply, ScriptedServer, running, with_ranges

WEIGHTS = random.Random(1).randbytes(300_000)
CONFIG = b'{"model_type": "bert"}'
WEIGHTS_URL = "/students/stu-1/files/model.safetensors"


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    return {"path": path, "sha256": sha256(content), "size_bytes": len(content)}


def etag(content: bytes) -> str:
    return f'"{sha256(content)}"'


@pytest.fixture
def student(server: ScriptedServer) -> ScriptedServer:
    """A service with one student of two files."""
    manifest = [entry("config.json", CONFIG), entry("model.safetensors", WEIGHTS)]
    server.on("GET", "/students/stu-1/files", Reply.of({"data": manifest, "has_more": False}))
    server.on("GET", "/students/stu-1/files/config.json", with_ranges(CONFIG, etag(CONFIG)))
    server.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS, etag(WEIGHTS)))
    return server


def test_a_whole_download_has_the_manifests_bytes(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    folder = client.students.download("stu-1", tmp_path / "new" / "student")
    assert (folder / "config.json").read_bytes() == CONFIG
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_dropped_connections_are_resumed_where_they_broke(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    student.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS, etag(WEIGHTS), cut_after=120_000))
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
    ranges = [request.headers.get("Range") for request in student.seen("GET", WEIGHTS_URL)]
    assert ranges == [None, "bytes=120000-", "bytes=240000-"]


def test_a_busy_service_is_asked_again(student: ScriptedServer, client: MukaClient, tmp_path: Path) -> None:
    student.on("GET", WEIGHTS_URL, Reply(503), DROP, with_ranges(WEIGHTS, etag(WEIGHTS)))
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_later_call_goes_on_with_the_part_of_an_earlier_one(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    student.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS, etag(WEIGHTS), cut_after=100_000), DROP)
    with pytest.raises(ConnectionFailedError):
        client.students.download("stu-1", tmp_path, retries=0)
    assert not (tmp_path / "model.safetensors").exists()
    assert (tmp_path / "model.safetensors.part").stat().st_size == 100_000

    student.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS, etag(WEIGHTS)))
    client.students.download("stu-1", tmp_path)
    assert student.seen("GET", WEIGHTS_URL)[-1].headers["Range"] == "bytes=100000-"
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_whole_files_are_left_alone(student: ScriptedServer, client: MukaClient, tmp_path: Path) -> None:
    client.students.download("stu-1", tmp_path)
    client.students.download("stu-1", tmp_path)
    assert len(student.seen("GET", WEIGHTS_URL)) == 1


def test_a_damaged_file_on_the_disk_is_replaced(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    client.students.download("stu-1", tmp_path)
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS[:-1] + b"?")
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_the_part_of_another_student_is_thrown_away(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(b"x" * 1000)
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_an_overlong_part_is_thrown_away(student: ScriptedServer, client: MukaClient, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(WEIGHTS + b"more")
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_that_has_changed_on_the_service_is_fetched_afresh(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    (tmp_path / "model.safetensors.part").write_bytes(WEIGHTS[:500])
    student.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS, '"another"'))  # If-Range does not match: 200
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS


def test_bytes_that_do_not_match_the_manifest_never_get_the_files_name(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    damaged = WEIGHTS[:-1] + b"?"
    student.on("GET", WEIGHTS_URL, with_ranges(damaged, etag(WEIGHTS)))
    with pytest.raises(ChecksumError, match=r"model\.safetensors arrived twice with another sha256"):
        client.students.download("stu-1", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_service_that_sends_without_end_is_cut_off(
    student: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    student.on("GET", WEIGHTS_URL, with_ranges(WEIGHTS * 20, etag(WEIGHTS)))
    with pytest.raises(ChecksumError):
        client.students.download("stu-1", tmp_path)


@pytest.mark.parametrize(
    "path", ["../evil", "/etc/evil", "a/../../evil", "..", "", "C:\\evil", "a\\..\\..\\evil", "nul\0"]
)
def test_a_manifest_that_escapes_the_folder_writes_nothing(
    server: ScriptedServer, client: MukaClient, tmp_path: Path, path: str
) -> None:
    manifest = [entry("config.json", CONFIG), entry(path, b"evil")]
    server.on("GET", "/students/stu-1/files", Reply.of({"data": manifest}))
    server.on("GET", "/students/stu-1/files/.*", Reply(200, b"evil"))
    folder = tmp_path / "inner"
    with pytest.raises(UnsafePathError, match="nothing was written"):
        client.students.download("stu-1", folder)
    assert list(tmp_path.rglob("*")) == []


def test_a_link_in_the_folder_does_not_lead_out_of_it(
    server: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    outside.mkdir()
    folder.mkdir()
    (folder / "sub").symlink_to(outside)
    server.on("GET", "/students/stu-1/files", Reply.of({"data": [entry("sub/file", b"evil")]}))
    with pytest.raises(UnsafePathError):
        client.students.download("stu-1", folder)
    assert list(outside.iterdir()) == []


def test_files_in_folders_and_empty_files_arrive(
    server: ScriptedServer, client: MukaClient, tmp_path: Path
) -> None:
    manifest = [entry("1_Pooling/config v2.json", CONFIG), entry("empty", b"")]
    server.on("GET", "/students/stu-1/files", Reply.of({"data": manifest}))
    server.on("GET", "/students/stu-1/files/1_Pooling/config%20v2.json", with_ranges(CONFIG, etag(CONFIG)))
    client.students.download("stu-1", tmp_path)
    assert (tmp_path / "1_Pooling" / "config v2.json").read_bytes() == CONFIG
    assert (tmp_path / "empty").read_bytes() == b""


def test_progress_goes_up_to_the_total(student: ScriptedServer, client: MukaClient, tmp_path: Path) -> None:
    told: list[DownloadProgress] = []
    client.students.download("stu-1", tmp_path, on_progress=told.append)
    received = [progress.received_bytes for progress in told]
    assert received == sorted(received)
    assert received[-1] == told[-1].total_bytes == len(CONFIG) + len(WEIGHTS)


class TestElsewhere:
    """The service keeps its files in a bucket, and redirects to it."""

    @pytest.fixture
    def bucket(self, student: ScriptedServer) -> Iterator[ScriptedServer]:
        with running() as bucket:
            for name, content in (("config.json", CONFIG), ("model.safetensors", WEIGHTS)):
                to = {"Location": f"{bucket.url}/{name}?X-Amz-Signature=1", "ETag": etag(content)}
                student.on("GET", f"/students/stu-1/files/{name}", Reply(302, headers=to))
                bucket.on("GET", f"/{name}", with_ranges(content, '"its own"'))
            yield bucket

    def test_the_key_stays_with_the_service(
        self, student: ScriptedServer, bucket: ScriptedServer, tmp_path: Path
    ) -> None:
        with MukaClient(student.url, api_key="secret") as client:
            client.students.download("stu-1", tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
        assert {request.headers.get("Authorization") for request in student.requests} == {"Bearer secret"}
        assert len(bucket.requests) == 2
        assert "secret" not in str([request.headers for request in bucket.requests])

    def test_dropped_connections_are_resumed_there(
        self, student: ScriptedServer, bucket: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        bucket.on("GET", "/model.safetensors", with_ranges(WEIGHTS, '"its own"', cut_after=120_000))
        client.students.download("stu-1", tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
        seen = bucket.seen("GET", "/model.safetensors")
        assert [each.headers.get("Range") for each in seen] == [None, "bytes=120000-", "bytes=240000-"]
        assert len(student.seen("GET", WEIGHTS_URL)) == 3, "each time with a fresh signature"

    def test_a_part_of_another_file_is_not_gone_on_with(
        self, student: ScriptedServer, bucket: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        (tmp_path / "model.safetensors.part").write_bytes(WEIGHTS[:500])
        to = {"Location": f"{bucket.url}/model.safetensors", "ETag": '"another"'}
        student.on("GET", WEIGHTS_URL, Reply(302, headers=to))
        client.students.download("stu-1", tmp_path)
        assert (tmp_path / "model.safetensors").read_bytes() == WEIGHTS
        assert [each.headers.get("Range") for each in bucket.seen("GET", "/model.safetensors")] == [None]

    def test_a_bucket_that_refuses_is_not_taken_for_the_service(
        self, bucket: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        bucket.on("GET", "/config.json", Reply(403, b"<Error/>"))
        with pytest.raises(ConnectionFailedError, match="where the service keeps its files, answered 403"):
            client.students.download("stu-1", tmp_path, retries=0)

    def test_a_bucket_that_is_not_reached_is_told_as_such(
        self, student: ScriptedServer, client: MukaClient, tmp_path: Path
    ) -> None:
        to = {"Location": "http://127.0.0.1:9/config.json"}
        student.on("GET", "/students/stu-1/files/config.json", Reply(302, headers=to))
        with pytest.raises(ConnectionFailedError, match="MUKA_STORE_PUBLIC_URL"):
            client.students.download("stu-1", tmp_path, retries=0)

    def test_a_circle_ends(self, student: ScriptedServer, client: MukaClient, tmp_path: Path) -> None:
        student.on(
            "GET", "/students/stu-1/files/config.json", Reply(302, headers={"Location": "config.json"})
        )
        with pytest.raises(UnexpectedAnswerError, match="redirects without end"):
            client.students.download("stu-1", tmp_path, retries=0)
