"""The artifact store: one interface, keys like `students/stu-…/attempt-1/config.json`.

A key is written once and whole, or not at all: in a folder writers stage on the same file system, sync and
rename; in a bucket an upload counts when it is complete, and notes hide folders that are not.
Layout:

    corpora/<cor-id>.parquet                     normalised texts
    models/<mdl-id>/<file>                       uploaded teachers
    scores/<digest>.safetensors                  teacher outputs of one shard, content-addressed
    jobs/<amg-id>/attempt-<n>/checkpoints/<step>/…
    jobs/<amg-id>/attempt-<n>/texts.parquet      what `amalgamations.text_table` names
    students/<stu-id>/attempt-<n>/<file>         what `students.storage_prefix` names
"""

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

from app.settings import Settings

DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EFBIG})
"""What a disk says that is full or broken."""


class StoreError(Exception):
    """The store cannot read or write (disk full, permission, not mounted)."""


class StoreFullError(StoreError):
    """It has no room, which waiting does not change."""


class StoreAwayError(StoreError):
    """In its place is something else, or nothing: it is not mounted, or the settings name another place."""


@dataclass(frozen=True)
class Measure:
    """How much lies under a key, and for how long."""

    size_bytes: int
    """Of all files in it."""
    age_seconds: float
    """Since the last change to anything in it."""


class ArtifactStore(Protocol):
    """What muka needs of a store. Errors of the medium are raised as `StoreError`."""

    def check(self) -> None:
        """Write and remove a small file: raises `StoreError` when the store is not usable."""

    def staging(self) -> AbstractContextManager[Path]:
        """A fresh folder near the store, removed afterwards: what is moved out stays."""

    def put_file(self, key: str, source: Path) -> None:
        """Move the file in, synced; replaces what is there."""

    def put_folder(self, prefix: str, source: Path) -> None:
        """Move the folder in as one: readers see all of it or nothing."""

    def exists(self, key: str) -> bool:
        """True when the key is a stored file, or a prefix of one."""

    def size(self, key: str) -> int:
        """Bytes of the file; `FileNotFoundError` when there is none."""

    def open(self, key: str) -> BinaryIO:
        """The file for reading, seekable; `FileNotFoundError` when there is none."""

    def local_path(self, key: str) -> Path:
        """The file or folder as a local path, for readers that map memory; or `FileNotFoundError`.

        It is there as long as the process lives, and nobody writes to it.
        """

    def borrowed(self, key: str) -> AbstractContextManager[Path]:
        """The same as long as the block runs: for processes that read many, one after the other."""

    def url(self, key: str) -> str | None:
        """Where anybody may fetch the file for a short time without us; None where only we have it."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of all files under the prefix, sorted."""

    def delete(self, prefix: str) -> None:
        """Remove the file or folder; nothing happens when it is not there."""

    # For the sweeper

    def children(self, prefix: str) -> Iterator[str]:
        """Keys of the files and folders directly below the prefix, sorted."""

    def measure(self, key: str) -> Measure:
        """Size and age of a file or folder, also of an unfinished one; nothing there is empty and new."""

    def unfinished(self) -> Iterator[str]:
        """What is being written or removed, by processes at work and by those that died in it."""

    def discard(self, unfinished: str) -> None:
        """Remove one of these; nothing happens when it is not there."""


def open_store(root: Path, is_new: Callable[[], bool] = lambda: True) -> ArtifactStore:
    """The store in a folder.

    `is_new`: asked where the store is empty; False: it cannot be, so it must be away (`StoreAwayError`).
    """
    from app.storage.folder import FolderStore  # noqa: PLC0415  (implementations load when they are chosen)

    return FolderStore(root, is_new)


def configured_store(settings: Settings, is_new: Callable[[], bool] = lambda: True) -> ArtifactStore:
    """The store that the settings name; `is_new` as for one in a folder.

    Raises:
        StoreError: they cannot be those of a bucket.
    """
    if settings.store_url is None:
        return open_store(settings.resolved_store_dir(), is_new)
    from app.storage.local_files import LocalFiles  # noqa: PLC0415
    from app.storage.s3 import S3ArtifactStore  # noqa: PLC0415
    from app.storage.s3_bucket import Bucket  # noqa: PLC0415

    local = LocalFiles(settings.resolved_scratch_dir() / "store", settings.store_cache_bytes)
    return S3ArtifactStore(Bucket(settings.store_url, settings.store_public_url), local)
