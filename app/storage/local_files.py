"""Files of a remote store on a local disk: a cache that all processes of this machine share.

Whoever reads a file gets a hard link of its own, so what the cache lets go of stays where it is read. Working
folders live as long as their process; those of dead ones are removed by the next that comes.
"""

import fcntl
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

from app.storage.store import StoreError

_SURPLUS_PARTS = 20
"""So many parts has the limit; after each that a process fetched it looks whether the whole is kept to."""


class LocalFiles:
    """Below one folder, for one store object; any number of threads and processes."""

    def __init__(self, root: Path, max_cache_bytes: int) -> None:
        """
        Args:
            root: of all processes; on one file system.
            max_cache_bytes: what the cache keeps, besides files that are being read.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._root = root
        self._max_cache_bytes = max_cache_bytes
        self._fetched_bytes = 0
        self._lock = threading.Lock()

    def new_folder(self) -> Path:
        """Empty, and there until this process ends."""
        with self._lock, _disk_errors():
            return Path(tempfile.mkdtemp(dir=self._own))

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Empty, and there until the block ends."""
        folder = self.new_folder()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def provide(self, name: str, target: Path, fetch: Callable[[Path], None]) -> None:
        """The file with this content at `target`, which is not to be written to: from the cache or fetched.

        Args:
            name: of the content: never the same for another.
            target: a new file in a folder of this process.
            fetch: writes the content to the path that it is given.
        """
        cached = self._cache / name
        with _disk_errors():
            with suppress(FileNotFoundError):
                os.utime(cached)
                target.hardlink_to(cached)
                return
            fetch(target)
            self._keep(target, cached)
            self._fetched_bytes += target.stat().st_size
            if self._fetched_bytes * _SURPLUS_PARTS >= self._max_cache_bytes:
                self._let_go()

    def _keep(self, file: Path, cached: Path) -> None:
        with self.folder() as aside:  # a link cannot replace another, a rename can
            (aside / "link").hardlink_to(file)
            (aside / "link").replace(cached)

    def _let_go(self) -> None:
        """The longest unused first, until the rest fits."""
        self._fetched_bytes = 0
        found = sorted(_times_and_sizes(self._cache))
        surplus = sum(size for _, size, _ in found) - self._max_cache_bytes
        for _, size, path in found:
            if surplus <= 0:
                return
            path.unlink(missing_ok=True)
            surplus -= size

    @cached_property
    def _cache(self) -> Path:
        cache = self._root / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        return cache

    @cached_property
    def _own(self) -> Path:
        """Locked as long as this process lives, which tells the others that it does."""
        running = self._root / "running"
        running.mkdir(parents=True, exist_ok=True)
        with (self._root / "lock").open("w") as alone:
            fcntl.flock(alone, fcntl.LOCK_EX)
            _remove_dead(running)
            own = Path(tempfile.mkdtemp(dir=running))
            fcntl.flock(os.open(own / "lock", os.O_CREAT), fcntl.LOCK_EX)  # closed by the end of the process
        return own


def _times_and_sizes(folder: Path) -> Iterator[tuple[float, int, Path]]:
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # another process lets go of it, too
            status = path.stat()
            yield status.st_mtime, status.st_size, path


def _remove_dead(running: Path) -> None:
    for folder in running.iterdir():
        with suppress(FileNotFoundError), (folder / "lock").open("r+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"the disk of MUKA_SCRATCH_DIR cannot be written: {error.strerror or error}"
        ) from error
