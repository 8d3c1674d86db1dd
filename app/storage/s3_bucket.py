"""One bucket of an S3 server: objects by key, each written whole or not at all; errors are `StoreError`s.

`obstore` reads the environment as every program for S3 does: `AWS_ENDPOINT_URL`, `AWS_REGION`,
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, …; without keys it asks the machine for those of its role.
"""

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from app.storage.store import StoreError, StoreFullError

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig, S3Config

PIECE_BYTES = 8 << 20
"""Of what is sent or fetched in one request: each is asked again when it fails, and bounds the memory."""
_AT_ONCE = 4
_CLIENT: "ClientConfig" = {"allow_http": True, "connect_timeout": "5s", "timeout": "60s"}
_RETRIES: "RetryConfig" = {"max_retries": 5, "retry_timeout": timedelta(seconds=20)}
_MOST_PARTS = 10_000
"""That an upload may have."""
_FULL = frozenset({"QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "XMinioStorageFull"})
"""Codes of servers without room; S3 itself has none. They answer 507 as well."""
_ROLE_SERVER = "169.254."
"""Of a cloud: tells a machine the keys of its role. Asked where the environment has none."""


class ObjectChangedError(StoreError):
    """The object was replaced while it was read."""


@dataclass(frozen=True)
class StoredObject:
    """What the server tells of an object."""

    key: str
    size_bytes: int
    e_tag: str
    """Changes with the content."""
    changed_at: datetime
    """By the server's clock."""


class Bucket:
    """The objects under the prefix of `s3://bucket/prefix`."""

    def __init__(self, url: str, public_endpoint: str | None = None) -> None:
        parts = urlsplit(url)
        self._name, prefix = parts.netloc, parts.path.strip("/") or None
        # The name of an endpoint that stands above all others in the environment.
        public: S3Config = {"aws_endpoint_url_s3": public_endpoint} if public_endpoint else {}
        make = partial(S3Store, self._name, prefix=prefix, client_options=_CLIENT, retry_config=_RETRIES)
        with _store_errors(self._name):
            self._store, self._public = make(), make(**public)

    def put(self, key: str, content: bytes) -> None:
        """Write a small object; replaces what is there."""
        with _store_errors(self._name, writing=True):
            obstore.put(self._store, key, content)

    def upload(self, key: str, source: Path) -> None:
        """Write a file; nobody sees the object before it is whole."""
        piece = max(PIECE_BYTES, -(-source.stat().st_size // _MOST_PARTS))
        with _store_errors(self._name, writing=True):
            obstore.put(self._store, key, source, chunk_size=piece, max_concurrency=_AT_ONCE)

    def find(self, key: str) -> StoredObject | None:
        """The object with exactly this key, if there is one."""
        try:
            with _store_errors(self._name):
                return _told(obstore.head(self._store, key))
        except FileNotFoundError:
            return None

    def below(self, prefix: str) -> list[StoredObject]:
        """All objects in this folder and its folders, in the order of their keys."""
        with _store_errors(self._name):
            chunks = obstore.list(self._store, prefix)
            return sorted((_told(each) for chunk in chunks for each in chunk), key=lambda each: each.key)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are no error."""
        with _store_errors(self._name, writing=True):
            obstore.delete(self._store, list(keys))

    def read(self, key: str) -> bytes:
        """A small object; `FileNotFoundError` when there is none."""
        with _store_errors(self._name):
            return bytes(obstore.get(self._store, key).bytes())

    def read_range(self, of: StoredObject, start: int, stop: int) -> bytes:
        """Bytes of just this content; raises `ObjectChangedError` when the object was replaced or removed."""
        options: GetOptions = {"range": (start, stop), "if_match": of.e_tag}
        try:
            with _store_errors(self._name):
                return bytes(obstore.get(self._store, of.key, options=options).bytes())
        except FileNotFoundError as error:
            raise ObjectChangedError("a file of the artifact store was removed while it was read") from error

    def download(self, of: StoredObject, target: Path) -> None:
        """All of it into a new file, several pieces at once, and synced."""
        with target.open("wb") as file, ThreadPoolExecutor(_AT_ONCE) as threads:

            def fetch(start: int) -> None:
                stop = min(start + PIECE_BYTES, of.size_bytes)
                os.pwrite(file.fileno(), self.read_range(of, start, stop), start)

            for _ in threads.map(fetch, range(0, of.size_bytes, PIECE_BYTES)):
                pass
            os.fsync(file.fileno())

    def presigned_url(self, key: str, seconds: float) -> str:
        """Where anybody may GET the object for so long."""
        with _store_errors(self._name):
            return obstore.sign(self._public, "GET", key, timedelta(seconds=seconds))


def _told(meta: "ObjectMeta") -> StoredObject:
    return StoredObject(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"])


@contextmanager
def _store_errors(bucket: str, *, writing: bool = False) -> Iterator[None]:
    """As the store's errors, which may reach users: with what to do, without addresses. Logs have the cause.

    Raises:
        FileNotFoundError: a key is not there; not while writing, where it is the bucket.
    """
    try:
        yield
    except PreconditionError as error:
        raise ObjectChangedError("a file of the artifact store was replaced while it was read") from error
    except FileNotFoundError as error:
        if writing:
            raise _without_bucket(bucket) from error
        raise
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise _refused(error) from error
    except BaseError as error:
        raise _unusable(bucket, error) from error
    except OSError as error:
        raise StoreError(f"a local file cannot be read: {error.strerror or error}") from error


def _unusable(bucket: str, error: BaseError) -> StoreError:
    code = _code(error)
    if _ROLE_SERVER in str(error):
        return StoreError(
            "the artifact store has no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give "
            "the machine a role"
        )
    if code == "NoSuchBucket":
        return _without_bucket(bucket)
    if code in _FULL or "507 Insufficient Storage" in str(error):
        return StoreFullError(
            f"the bucket {bucket!r} has no room ({code or 507}): free some, or raise its quota"
        )
    if "403 Forbidden" in str(error):
        return _refused(error)
    what = f"answers {code}" if code else "does not answer"
    return StoreError(f"the artifact store's S3 server {what}: see that it runs, and AWS_ENDPOINT_URL")


def _refused(error: BaseError) -> StoreError:
    return StoreError(
        f"the artifact store's S3 server refuses the request ({_code(error) or '403'}): check "
        "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and that the key may list, get, put and "
        "delete in the bucket"
    )


def _without_bucket(bucket: str) -> StoreError:
    return StoreError(f"there is no bucket {bucket!r}: create it, or correct MUKA_STORE_URL")


def _code(error: BaseError) -> str | None:
    """As S3 names it."""
    found = re.search(r"<Code>(\w+)</Code>", str(error))
    return found[1] if found else None
