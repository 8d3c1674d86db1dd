"""The marker of a store: what is not mounted is never written into, and a new one needs nothing."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from app.storage import ArtifactStore, StoreAwayError, open_store
from app.storage.folder import MARKER


def _put(store: ArtifactStore, key: str = "corpora/a.parquet") -> None:
    with store.staging() as folder:
        (folder / "file").write_bytes(b"texts")
        store.put_file(key, folder / "file")


def _known() -> bool:
    return False


READS: dict[str, Callable[[ArtifactStore], object]] = {
    "exists": lambda store: store.exists("corpora/a.parquet"),
    "size": lambda store: store.size("corpora/a.parquet"),
    "open": lambda store: store.open("corpora/a.parquet"),
    "local_path": lambda store: store.local_path("corpora/a.parquet"),
    "children": lambda store: list(store.children("corpora")),
}
WRITES: dict[str, Callable[[ArtifactStore], object]] = {
    "put": _put,
    "delete": lambda store: store.delete("corpora/a.parquet"),
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("there", [True, False], ids=["a mount point", "no folder"])
@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_what_is_not_mounted_is_away_and_is_not_written_into(tmp_path: Path, name: str, there: bool) -> None:
    root = tmp_path / "store"
    if there:
        root.mkdir()
    with pytest.raises(StoreAwayError, match="is it mounted"):
        (READS | WRITES)[name](open_store(root, _known))
    assert list(tmp_path.rglob("*")) == ([root] if there else [])


@pytest.mark.parametrize("there", [True, False])
def test_a_new_one_needs_no_step(tmp_path: Path, there: bool) -> None:
    root = tmp_path / "store"
    if there:
        root.mkdir()
    store = open_store(root, lambda: True)
    assert not store.exists("corpora/a.parquet")
    assert not (root / MARKER).exists()  # who only looks leaves nothing behind
    _put(store)
    assert open_store(root, _known).exists("corpora/a.parquet")


def test_it_goes_away_and_comes_back_while_it_is_used(tmp_path: Path) -> None:
    root = tmp_path / "store"
    _put(open_store(root))
    store = open_store(root, _known)
    root.rename(tmp_path / "elsewhere")
    root.mkdir()
    with pytest.raises(StoreAwayError):
        store.open("corpora/a.parquet")
    with pytest.raises(StoreAwayError):
        _put(store)
    root.rmdir()
    (tmp_path / "elsewhere").rename(root)
    with store.open("corpora/a.parquet") as file:
        assert file.read() == b"texts"
    _put(store, "corpora/b.parquet")


def test_what_is_missing_in_it_is_just_missing(tmp_path: Path) -> None:
    _put(open_store(tmp_path))
    store = open_store(tmp_path, _known)
    assert not store.exists("corpora/b.parquet")
    assert list(store.children("models")) == []
    with pytest.raises(FileNotFoundError):
        store.open("corpora/b.parquet")


def test_one_that_was_made_before_there_were_markers_gets_one(tmp_path: Path) -> None:
    _put(open_store(tmp_path))
    (tmp_path / MARKER).unlink()
    _put(open_store(tmp_path, _known), "corpora/b.parquet")
    assert (tmp_path / MARKER).exists()


def test_many_begin_at_once(tmp_path: Path) -> None:
    """The first of them has told the database before the others have looked at it."""
    root, together, failed = tmp_path / "store", threading.Barrier(8), []
    told = threading.Event()

    def begin(number: int) -> None:
        store = open_store(root, lambda: not told.is_set())
        together.wait()
        try:
            _put(store, f"corpora/{number}.parquet")
            told.set()
        except StoreAwayError as error:
            failed.append(error)

    for _ in range(5):
        told.clear()
        shutil.rmtree(root, ignore_errors=True)
        threads = [threading.Thread(target=begin, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(list(open_store(root).children("corpora"))) == 8
