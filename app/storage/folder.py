"""The store in a folder: of a laptop, or shared by API and workers over a network file system.

A file system that is not mounted leaves an empty folder in its place. So that nothing is written into that,
the store has a marker: it is made with the first file, and missed where the database knows of files.
"""

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from app.storage.store import Measure, StoreAwayError, StoreError

STAGING = ".staging"
MARKER = ".muka-store"
_ROOMS = ("corpora", "models", "scores", "jobs", "students")


class FolderStore:
    """`ArtifactStore` over a folder. Renames are atomic, files and their folders are synced first."""

    def __init__(self, root: Path, is_new: Callable[[], bool] = lambda: True) -> None:
        """`is_new`: asked where there is no marker: whether nobody knows of anything in the store."""
        self.root = root
        self._is_new = is_new

    def check(self) -> None:
        """Write, sync and remove a small file."""
        with self.staging() as folder, _store_errors():
            probe = folder / "probe"
            probe.write_bytes(b"muka")
            _sync(probe)

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A fresh folder beside the artifacts, so that moving out of it is a rename."""
        with _store_errors():
            self._make()
            parent = self.root / STAGING
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(dir=parent))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put_file(self, key: str, source: Path) -> None:
        """Sync the file, then rename it to its place."""
        with _store_errors():
            target = self._path(key)
            self._make()
            _make_folder(target.parent)
            _sync(source)
            source.replace(target)
            _sync(target.parent)

    def put_folder(self, prefix: str, source: Path) -> None:
        """Sync every file, then rename the folder to its place; an older one there is replaced."""
        with _store_errors():
            target = self._path(prefix)
            self._make()
            _make_folder(target.parent)
            for path in sorted(source.rglob("*")):
                _sync(path)
            _sync(source)
            if target.exists():
                self._replace(target, source)
            else:
                source.rename(target)
            _sync(target.parent)

    def _replace(self, target: Path, source: Path) -> None:
        with self.staging() as attic:
            old = target.rename(attic / "old")
            try:
                source.rename(target)
            except OSError:
                old.rename(target)
                raise

    def exists(self, key: str) -> bool:
        """True when the file or folder is there."""
        with _store_errors("read"):
            return self._found(self._path(key).exists())

    def size(self, key: str) -> int:
        """Bytes of the file."""
        return self.local_path(key).stat().st_size

    def open(self, key: str) -> BinaryIO:
        """The file for reading."""
        return self.local_path(key).open("rb")

    def local_path(self, key: str) -> Path:
        """The path itself."""
        path = self._path(key)
        if not self.exists(key):
            raise FileNotFoundError(f"the store holds no {key}")
        return path

    @contextmanager
    def borrowed(self, key: str) -> Iterator[Path]:
        """The path itself."""
        yield self.local_path(key)

    def url(self, key: str) -> None:
        """Nobody else reaches the folder."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of all files under the prefix."""
        for path in sorted(_below(self._path(prefix))):
            if path.is_file():
                yield path.relative_to(self.root).as_posix()

    def delete(self, prefix: str) -> None:
        """Move out of sight in one step, then remove."""
        path = self._path(prefix)
        with self.staging() as attic, _store_errors():
            try:
                path.rename(attic / "deleted")
            except FileNotFoundError:
                return

    def children(self, prefix: str) -> Iterator[str]:
        """Entries of the folder."""
        paths = _entries(self._path(prefix))
        self._found(bool(paths))
        for path in paths:
            yield path.relative_to(self.root).as_posix()

    def measure(self, key: str) -> Measure:
        """By the clock of this machine: on a network file system, give limits that no clock is wrong by."""
        path = self._unfinished(key) if key.startswith(f"{STAGING}/") else self._path(key)
        found = [status for each in (path, *_below(path)) if (status := _status(each)) is not None]
        # The time of a rename is in the inode's time only.
        changed = max((max(each.st_mtime, each.st_ctime) for each in found), default=time.time())
        size = sum(each.st_size for each in found if stat.S_ISREG(each.st_mode))
        return Measure(size, max(0.0, time.time() - changed))

    def unfinished(self) -> Iterator[str]:
        """Folders of `staging()`, and what lies in an attic that was not emptied."""
        for path in _entries(self.root / STAGING):
            yield path.relative_to(self.root).as_posix()

    def discard(self, unfinished: str) -> None:
        """What cannot be removed is there for the next time."""
        shutil.rmtree(self._unfinished(unfinished), ignore_errors=True)

    def _make(self) -> None:
        """Before something is written: the store is there, or begins here. Raises `StoreAwayError`."""
        marker = self.root / MARKER
        if not marker.exists():
            self._found(False)
            self.root.mkdir(parents=True, exist_ok=True)
            marker.touch()

    def _found(self, what: bool) -> bool:
        """The same; raises `StoreAwayError` when it is not there because the whole store is not."""
        marker = self.root / MARKER
        if what or marker.exists() or self._is_new() or self._is_older_than_markers():
            return what
        if marker.exists():
            return what  # somebody has made it, and told the database, while we looked
        raise StoreAwayError(
            f"the artifact store is away: its folder has no {MARKER}, although the database knows of files "
            "in it; is it mounted?"
        )

    def _is_older_than_markers(self) -> bool:
        return any(_entries(self.root / room) for room in _ROOMS)

    def _unfinished(self, key: str) -> Path:
        name = key.removeprefix(f"{STAGING}/")
        if "/" in name or name in {"", "..", key}:
            raise ValueError(f"not a staging folder: {key!r}")
        return self.root / STAGING / name

    def _path(self, key: str) -> Path:
        parts = PurePosixPath(key).parts
        if not parts or key.startswith("/") or ".." in parts or parts[0] == STAGING:
            raise ValueError(f"not a key of the store: {key!r}")
        return self.root.joinpath(*parts)


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _told(error, "read") from error


def _below(folder: Path) -> Iterator[Path]:
    """All files and folders under it, at any depth; `os.walk` passes over what is removed meanwhile."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(parent, name)


def _status(path: Path) -> os.stat_result | None:
    """None when somebody has just removed it."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


@contextmanager
def _store_errors(done: str = "written") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _told(error, done) from error


def _told(error: OSError, done: str) -> StoreError:
    return StoreError(f"the artifact store cannot be {done}: {error.strerror or error}")


def _make_folder(folder: Path) -> None:
    """With those above it, each synced into the one that holds it: or all is lost with the power."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
