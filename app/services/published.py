"""Folders that are published: those of students and of checkpoints, file by file or as one .tar."""

import tarfile
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Protocol

from app.services.downloads import Download, StoredFile
from app.storage import ArtifactStore


class Published(Protocol):
    """A row that names a folder of the store and what is in it; it never changes."""

    created_at: Any
    storage_prefix: Any
    files: Any


def file(store: ArtifactStore, folder: Published, path: str) -> Download | None:
    """One file of the manifest; None when the manifest does not have it: nothing else can be named.

    Raises:
        StoreError: the file is not there.
    """
    for entry in folder.files:
        if entry["path"] == path:
            download = Download(path.rpartition("/")[2], [_stored(folder, entry)])
            download.check(store)
            return download
    return None


def archive(store: ArtifactStore, folder: Published, name: str) -> Download:
    """All files as `name`.tar: the same bytes every time, laid out without reading a file.

    Raises:
        StoreError: a file is not there.
    """
    download = Download(f"{name}.tar", [*_tar(folder, name)])
    download.check(store)
    return download


def _tar(folder: Published, name: str) -> Iterator[bytes | StoredFile]:
    published_at: datetime = folder.created_at
    for entry in sorted(folder.files, key=lambda entry: str(entry["path"])):
        header = tarfile.TarInfo(f"{name}/{entry['path']}")
        header.size = entry["size_bytes"]
        header.mtime = int(published_at.timestamp())
        yield header.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
        yield _stored(folder, entry)
        yield bytes(-header.size % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def _stored(folder: Published, entry: dict[str, Any]) -> StoredFile:
    key = f"{folder.storage_prefix}/{entry['path']}"
    return StoredFile(key, int(entry["size_bytes"]), str(entry["sha256"]))
