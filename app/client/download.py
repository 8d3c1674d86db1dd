"""Files of a student onto the disk: resumed where they stopped, and checked against the manifest."""

import hashlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from app.client.errors import ApiError, ChecksumError, ConnectionFailedError, UnsafePathError
from app.client.objects import StudentFile
from app.client.transport import RETRIED_STATUSES, Transport

PART = ".part"
"""Ending of a file that is not whole yet; a later download goes on with it."""

LONGEST_PAUSE = 20.0
"""Seconds between two tries after a dropped connection."""


@dataclass(frozen=True)
class DownloadProgress:
    """How far a download is, all files together."""

    path: str
    """The file that is being received."""
    received_bytes: int
    total_bytes: int


OnProgress = Callable[[DownloadProgress], None]


class Download:
    """One download of all files of a manifest into one folder."""

    def __init__(
        self,
        transport: Transport,
        url: str,
        folder: Path,
        on_progress: OnProgress | None = None,
        retries: int = 5,
    ) -> None:
        self._transport = transport
        self._url = url
        self._folder = folder
        self._on_progress = on_progress
        self._retries = retries
        """Tries in a row that bring nothing, after which it gives up."""
        self._finished_bytes = 0
        self._total_bytes = 0

    def run(self, manifest: Sequence[StudentFile]) -> None:
        """Fetch what is missing; every path is checked before the first byte is written."""
        targets = [safe_target(self._folder, entry.path) for entry in manifest]
        self._total_bytes = sum(entry.size_bytes for entry in manifest)
        for entry, target in zip(manifest, targets, strict=True):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fetch(entry, target)
            self._finished_bytes += entry.size_bytes
            self._tell(entry, 0)

    def _fetch(self, entry: StudentFile, target: Path) -> None:
        if is_whole(target, entry):
            return
        part = target.with_name(target.name + PART)
        for _ in range(2):  # A part may be of another student; then the second try starts afresh.
            self._receive(entry, part)
            if is_whole(part, entry):
                part.replace(target)
                return
            part.unlink()
        raise ChecksumError(
            f"{entry.path} arrived twice with another sha256 than the manifest's: the file is damaged on the "
            "service's disk or on the way. The other files are kept; try again, or see the service's log"
        )

    def _receive(self, entry: StudentFile, part: Path) -> None:
        """Append to the part until it is as long as the manifest says."""
        part.touch()
        fruitless = 0
        while (before := part.stat().st_size) < entry.size_bytes:
            failure: ApiError | ConnectionFailedError | None = None
            try:
                self._append(entry, part)
            except (ApiError, ConnectionFailedError) as error:
                if isinstance(error, ApiError) and error.status not in RETRIED_STATUSES:
                    raise
                failure = error
            after = part.stat().st_size
            fruitless = 0 if after > before else fruitless + 1
            if fruitless > self._retries:
                raise failure or ConnectionFailedError(
                    f"{entry.path} stopped at {after} of {entry.size_bytes} bytes: "
                    "run the download again, it goes on from there"
                )
            if failure:
                time.sleep(min(LONGEST_PAUSE, 0.25 * 2**fruitless) * random.uniform(0.75, 1.25))

    def _append(self, entry: StudentFile, part: Path) -> None:
        """One request for the rest; the part starts afresh when the service has another file by now."""
        have = part.stat().st_size
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": f'"{entry.sha256}"'}
        with self._transport.stream(f"{self._url}/{quote(entry.path)}", headers) as answer:
            is_rest = answer.status_code == 206
            received = have if is_rest else 0
            with part.open("ab" if is_rest else "wb") as file:
                # As the bytes come: a chunk size would lose what is buffered when the line breaks.
                for chunk in answer.iter_raw():
                    file.write(chunk)
                    received += len(chunk)
                    self._tell(entry, received)
                    if received > entry.size_bytes:  # not the file that was promised: do not fill the disk
                        return

    def _tell(self, entry: StudentFile, received: int) -> None:
        if self._on_progress:
            done = self._finished_bytes + received
            self._on_progress(DownloadProgress(entry.path, done, self._total_bytes))


def safe_target(folder: Path, path: str) -> Path:
    """Where a path of a manifest lies in the folder.

    Raises:
        UnsafePathError: it would lie outside.
    """
    parts = PurePosixPath(path).parts
    is_plain = bool(parts) and not path.startswith("/") and ".." not in parts
    if is_plain and not any(mark in path for mark in ("\\", ":", "\0")):
        target = folder.joinpath(*parts)
        if target.resolve().is_relative_to(folder.resolve()):
            return target
    raise UnsafePathError(
        f"the manifest names {path!r}, which lies outside of the folder: nothing was written. "
        "Do not trust this service, or report a bug of muka"
    )


def is_whole(path: Path, entry: StudentFile) -> bool:
    """True when the file is there with the manifest's size and sha256."""
    if not path.is_file() or path.stat().st_size != entry.size_bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == entry.sha256
