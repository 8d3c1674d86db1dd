"""The store in a bucket of an S3 server: API and workers share nothing but it."""

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import uuid4

from app.storage.local_files import LocalFiles
from app.storage.s3_bucket import Bucket, ObjectChangedError, StoredObject
from app.storage.s3_reader import open_object
from app.storage.s3_unfinished import NOTES, Unfinished
from app.storage.store import Measure

_URL_SECONDS = 300
"""How long a download may begin after it was asked for."""
_TRIES = 5
"""To read what somebody replaces again and again."""


class S3ArtifactStore:
    """`ArtifactStore` over a bucket. Single objects are whole or not there; `Unfinished` makes folders so."""

    def __init__(self, bucket: Bucket, local: LocalFiles) -> None:
        self._bucket = bucket
        self._local = local
        self._unfinished = Unfinished(bucket)

    def check(self) -> None:
        """Write, list, read and remove a small object."""
        key = f"{NOTES}/check-{uuid4().hex}"
        self._bucket.put(key, b"[]")
        self._unfinished.hidden()
        self._bucket.delete([key])

    def staging(self) -> AbstractContextManager[Path]:
        """A fresh folder on the local disk."""
        return self._local.folder()

    def put_file(self, key: str, source: Path) -> None:
        """Upload, then remove the local file."""
        self._bucket.upload(_checked(key), source)
        source.unlink()

    def put_folder(self, prefix: str, source: Path) -> None:
        """Upload file by file, hidden until all are there; an older folder there is gone at once."""
        files = {_inside(prefix, source, path): path for path in sorted(source.rglob("*")) if path.is_file()}
        older = [each.key for each in self._bucket.below(_checked(prefix)) if each.key not in files]
        with self._unfinished.noted([*files, *older]) as note:
            self._unfinished.take_over(files.keys() | older, note)
            if older:
                self._bucket.delete(older)
            for key, path in files.items():
                self._bucket.upload(key, path)
        shutil.rmtree(source, ignore_errors=True)

    def exists(self, key: str) -> bool:
        """True when the file or a file of the folder is there."""
        if self._bucket.find(_checked(key)) is not None:
            return key not in self._unfinished.hidden()
        return any(self.list(key))

    def size(self, key: str) -> int:
        """Bytes of the object."""
        return self._object(key).size_bytes

    def open(self, key: str) -> BinaryIO:
        """The object for reading; only what is read is fetched, and all of it is of one content."""
        return open_object(self._bucket, self._object(key))

    def local_path(self, key: str) -> Path:
        """Out of the cache of this machine; there as long as this process."""
        return self._fetch(key, self._local.new_folder())

    @contextmanager
    def borrowed(self, key: str) -> Iterator[Path]:
        """The same; its place on the disk is free again when the block ends."""
        with self._local.folder() as folder:
            yield self._fetch(key, folder)

    def list(self, prefix: str) -> Iterator[str]:
        """Keys of all objects under the prefix that are whole."""
        found = self._bucket.below(_checked(prefix))
        hidden = self._unfinished.hidden() if found else set()
        return (each.key for each in found if each.key not in hidden)

    def delete(self, prefix: str) -> None:
        """Hide, then remove object by object."""
        keys = [each.key for each in self._bucket.below(_checked(prefix))]
        if not keys:
            self._bucket.delete([prefix])
            return
        with self._unfinished.noted(keys):
            self._bucket.delete(keys)

    def url(self, key: str) -> str:
        """Presigned, for one GET that begins soon."""
        return self._bucket.presigned_url(_checked(key), _URL_SECONDS)

    def children(self, prefix: str) -> Iterator[str]:
        """By the objects in them: what some servers keep of empty folders is nothing."""
        names = (key.removeprefix(f"{prefix}/").partition("/")[0] for key in self.list(prefix))
        return (f"{prefix}/{name}" for name in dict.fromkeys(names))

    def measure(self, key: str) -> Measure:
        """By the server's clock and this machine's: give limits that they are not wrong by."""
        note = self._bucket.find(key) if key.startswith(f"{NOTES}/") else None
        if note is None:
            return _measure(self._all(key))
        named = (self._bucket.find(each) for each in self._unfinished.named_by(key))
        return _measure([note, *(each for each in named if each is not None)])

    def unfinished(self) -> Iterator[str]:
        """Notes of folders that are being written or removed, or whose writer died in it.

        Staging folders of dead processes go when another begins, on each machine. Parts of uploads that were
        cut off are not to be seen: the bucket's own rules should remove them.
        """
        return (note.key for note in self._unfinished.notes())

    def discard(self, unfinished: str) -> None:
        """Remove what the note names."""
        self._unfinished.discard(unfinished)

    def _object(self, key: str) -> StoredObject:
        found = self._bucket.find(_checked(key))
        if found is None:
            raise FileNotFoundError(f"the store holds no {key}")
        return found

    def _all(self, key: str) -> Sequence[StoredObject]:
        found = self._bucket.find(_checked(key))
        return [found] if found is not None else self._bucket.below(key)

    def _whole(self, key: str) -> Sequence[StoredObject]:
        one = self._bucket.find(_checked(key))
        found = [one] if one is not None else self._whole_folder(key)
        if not found:
            raise FileNotFoundError(f"the store holds no {key}")
        return found

    def _whole_folder(self, prefix: str) -> Sequence[StoredObject]:
        """Looked at twice: a folder that was in the making the first time may have been done in between."""
        found = self._bucket.below(prefix)
        hidden = self._unfinished.hidden()
        if found != self._bucket.below(prefix):
            raise ObjectChangedError(f"{prefix} is changing")
        return [] if any(each.key in hidden for each in found) else found

    def _fetch(self, key: str, folder: Path) -> Path:
        for _ in range(_TRIES - 1):
            with suppress(ObjectChangedError):
                return self._fetch_once(key, folder)
        return self._fetch_once(key, folder)

    def _fetch_once(self, key: str, folder: Path) -> Path:
        root = Path(tempfile.mkdtemp(dir=folder)) / PurePosixPath(key).name
        for each in self._whole(key):
            target = root / PurePosixPath(each.key).relative_to(key)
            target.parent.mkdir(parents=True, exist_ok=True)
            content = hashlib.sha256(f"{each.key}\n{each.e_tag}\n{each.size_bytes}".encode()).hexdigest()
            self._local.provide(content, target, partial(self._bucket.download, each))
        return root


def _measure(found: Sequence[StoredObject]) -> Measure:
    ages = [(datetime.now(UTC) - each.changed_at).total_seconds() for each in found]
    return Measure(sum(each.size_bytes for each in found), max(0.0, min(ages, default=0.0)))


def _inside(prefix: str, folder: Path, path: Path) -> str:
    return f"{prefix}/{path.relative_to(folder).as_posix()}"


def _checked(key: str) -> str:
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or parts[0] == NOTES:
        raise ValueError(f"not a key of the store: {key!r}")
    return "/".join(parts)
