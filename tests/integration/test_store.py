"""What every store promises, claimed of a folder and of a bucket alike."""

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.storage import ArtifactStore, StoreError, configured_store, corpus_texts, open_store
from app.storage.keeping import all_but

PREFIX = "students/stu-1/attempt-1"
FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 5000,
    "plots/für alle #1.svg": b"<svg/>",
}

Opener = Callable[[], ArtifactStore]


@pytest.fixture(params=["folder", "bucket"])
def opener(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Opens the same store again and again, as processes do."""
    if request.param == "folder":
        return lambda: open_store(tmp_path / "store")
    settings = request.getfixturevalue("s3_settings")
    return lambda: configured_store(settings)


@pytest.fixture
def store(opener: Opener) -> ArtifactStore:
    return opener()


def put(store: ArtifactStore, key: str, content: bytes) -> None:
    with store.staging() as folder:
        (folder / "file").write_bytes(content)
        store.put_file(key, folder / "file")


def put_folder(store: ArtifactStore, prefix: str, files: Mapping[str, bytes] = FILES) -> None:
    with store.staging() as folder:
        for name, content in files.items():
            path = folder / "made" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        store.put_folder(prefix, folder / "made")


def read(store: ArtifactStore, key: str) -> bytes:
    with store.open(key) as file:
        return file.read()


def content_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_a_sound_store_passes_its_check_and_holds_nothing_of_it(store: ArtifactStore) -> None:
    store.check()
    assert list(store.unfinished()) == []


class TestFiles:
    def test_what_is_put_is_there_for_every_process(self, store: ArtifactStore, opener: Opener) -> None:
        put(store, "corpora/cor-1.parquet", b"texts")
        other = opener()
        assert read(other, "corpora/cor-1.parquet") == b"texts"
        assert other.size("corpora/cor-1.parquet") == 5
        assert other.exists("corpora/cor-1.parquet")
        assert other.local_path("corpora/cor-1.parquet").read_bytes() == b"texts"

    def test_putting_moves_the_file(self, store: ArtifactStore) -> None:
        with store.staging() as folder:
            (folder / "file").write_bytes(b"x")
            store.put_file("scores/a", folder / "file")
            assert not (folder / "file").exists()

    def test_an_empty_file_is_one(self, store: ArtifactStore) -> None:
        put(store, "scores/empty", b"")
        assert (store.size("scores/empty"), read(store, "scores/empty")) == (0, b"")
        assert store.local_path("scores/empty").read_bytes() == b""

    def test_a_second_put_replaces_the_first_for_all_readers(self, store: ArtifactStore) -> None:
        put(store, "scores/a", b"old")
        assert store.local_path("scores/a").read_bytes() == b"old"
        put(store, "scores/a", b"newer")
        assert read(store, "scores/a") == b"newer"
        assert store.size("scores/a") == 5
        assert store.local_path("scores/a").read_bytes() == b"newer"

    def test_more_than_one_request_can_carry(self, store: ArtifactStore) -> None:
        content = os.urandom(20 << 20)
        put(store, "corpora/big", content)
        assert read(store, "corpora/big") == content
        assert store.local_path("corpora/big").read_bytes() == content

    def test_reading_goes_to_any_place(self, store: ArtifactStore) -> None:
        content = os.urandom(9 << 20)
        put(store, "corpora/big", content)
        with store.open("corpora/big") as file:
            assert file.seekable()
            for start, length in ((8 << 20, 2 << 20), (0, 10), (5_000_000, 1), (4_194_300, 20)):
                assert file.seek(start) == start
                assert file.read(length) == content[start : start + length]
            assert file.seek(-3, os.SEEK_END) == len(content) - 3
            assert file.read() == content[-3:]
            assert file.read(1) == b""
            assert file.tell() == len(content)

    def test_parquet_is_read_shard_by_shard(self, store: ArtifactStore) -> None:
        texts = [f"text {number}" for number in range(5000)]
        with store.staging() as folder:
            pq.write_table(pa.table({"text": texts}), folder / "corpus", row_group_size=700)
            store.put_file("corpora/c.parquet", folder / "corpus")
        batches = list(corpus_texts.batches(store, "corpora/c.parquet", ["text"], 1024))
        assert [batch.num_rows for batch in batches] == [1024] * 4 + [904]
        assert [text for batch in batches for text in batch.column("text").to_pylist()] == texts

    def test_what_is_not_there_is_said_to_be_so(self, store: ArtifactStore) -> None:
        put(store, "scores/there", b"x")
        for key in ("scores/a", "none/at/all", "scores/there/below"):
            assert not store.exists(key)
            for ask in (store.size, store.open, store.local_path):
                with pytest.raises((FileNotFoundError, NotADirectoryError)):
                    ask(key)
        assert list(store.list("none")) == list(store.children("none")) == []
        store.delete("none")

    @pytest.mark.parametrize("key", ["", "/etc/passwd", "../secret", "a/../../b"])
    def test_a_key_stays_inside(self, store: ArtifactStore, key: str) -> None:
        for ask in (store.exists, store.size, store.open, store.local_path, store.delete):
            with pytest.raises(ValueError, match="not a key of the store"):
                ask(key)


class TestFolders:
    def test_a_folder_arrives_as_it_was(self, store: ArtifactStore, opener: Opener) -> None:
        put_folder(store, PREFIX)
        other = opener()
        assert list(other.list("students/stu-1")) == sorted(f"{PREFIX}/{name}" for name in FILES)
        assert content_of(other.local_path(PREFIX)) == FILES
        assert {name: read(other, f"{PREFIX}/{name}") for name in FILES} == FILES
        assert other.exists(PREFIX)
        assert other.exists("students/stu-1")

    def test_its_local_name_is_its_own(self, store: ArtifactStore) -> None:
        """Who resumes reads the step from it."""
        put_folder(store, "jobs/amg-1/attempt-1/checkpoints/200")
        assert store.local_path("jobs/amg-1/attempt-1/checkpoints/200").name == "200"

    def test_a_replaced_folder_holds_nothing_of_the_old_one(self, store: ArtifactStore) -> None:
        put_folder(store, PREFIX, {"config.json": b"old", "gone": b"old"})
        old = store.local_path(PREFIX)
        put_folder(store, PREFIX, {"config.json": b"new", "fresh": b"new"})
        assert content_of(store.local_path(PREFIX)) == {"config.json": b"new", "fresh": b"new"}
        assert list(store.list(PREFIX)) == [f"{PREFIX}/config.json", f"{PREFIX}/fresh"]
        assert old.name == "attempt-1"

    def test_a_reader_sees_all_of_it_or_nothing(self, store: ArtifactStore, opener: Opener) -> None:
        """Four readers look while a folder is written three times."""
        versions = [{f"file-{i}": bytes([v]) * 1000 for i in range(8)} for v in range(3)]
        seen: list[dict[str, bytes]] = []
        over = threading.Event()

        def look() -> None:
            mine = opener()
            while not over.is_set():
                try:
                    with mine.borrowed(PREFIX) as folder:
                        seen.append(content_of(folder))
                except (FileNotFoundError, StoreError):
                    continue

        threads = [threading.Thread(target=look) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in versions:
            put_folder(store, PREFIX, version)
        over.set()
        for thread in threads:
            thread.join()
        if not isinstance(store.url(PREFIX), str):
            return  # a borrowed path of a folder store is the folder itself, which may be replaced meanwhile
        assert all(each in versions for each in seen)

    def test_deleting_takes_a_folder_a_file_or_nothing(self, store: ArtifactStore) -> None:
        put_folder(store, PREFIX)
        put_folder(store, "students/stu-10/attempt-1")
        store.delete(f"{PREFIX}/config.json")
        assert not store.exists(f"{PREFIX}/config.json")
        assert sorted(content_of(store.local_path(PREFIX))) == sorted(FILES.keys() - {"config.json"})
        store.delete("students/stu-1")
        assert not store.exists("students/stu-1")
        assert list(store.children("students")) == ["students/stu-10"]
        store.delete("students/stu-1")

    def test_children_are_files_and_folders(self, store: ArtifactStore) -> None:
        put_folder(store, "jobs/amg-1/attempt-1/checkpoints/100")
        put_folder(store, "jobs/amg-1/attempt-1/checkpoints/200")
        put(store, "jobs/amg-1/attempt-1/texts.parquet", b"x")
        assert list(store.children("jobs/amg-1/attempt-1")) == [
            "jobs/amg-1/attempt-1/checkpoints",
            "jobs/amg-1/attempt-1/texts.parquet",
        ]
        assert len(list(store.children("jobs/amg-1/attempt-1/checkpoints"))) == 2
        kept = {"jobs/amg-1/attempt-1/checkpoints/200/config.json"}
        for key in list(all_but(store, "jobs/amg-1", kept)):
            store.delete(key)
        assert set(store.list("jobs")) == kept

    def test_measured_by_bytes_and_seconds(self, store: ArtifactStore) -> None:
        put_folder(store, PREFIX)
        for key, size in ((PREFIX, sum(map(len, FILES.values()))), (f"{PREFIX}/config.json", 2), ("none", 0)):
            measure = store.measure(key)
            assert (measure.size_bytes, measure.age_seconds < 60) == (size, True)


class TestLocalFiles:
    def test_staging_is_gone_afterwards(self, store: ArtifactStore) -> None:
        with store.staging() as one, store.staging() as two:
            assert one != two
            (one / "left").write_bytes(b"x")
        assert not one.exists()
        assert not two.exists()

    def test_what_is_borrowed_is_there_as_long(self, store: ArtifactStore) -> None:
        put_folder(store, PREFIX)
        with store.borrowed(PREFIX) as folder:
            assert content_of(folder) == FILES
        with pytest.raises(FileNotFoundError), store.borrowed("none"):
            pass

    def test_many_threads_fetch_at_once(self, store: ArtifactStore, opener: Opener) -> None:
        put_folder(store, PREFIX)
        found: list[dict[str, bytes]] = []
        shared = opener()
        threads = [
            threading.Thread(target=lambda: found.append(content_of(shared.local_path(PREFIX))))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [FILES] * 8
