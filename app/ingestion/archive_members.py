"""What is in an archive, member by member; only plain files and folders get through."""

import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tarfile import TarError
from zipfile import BadZipFile

from app.domain.errors import Fault, InvalidModelError
from app.ingestion import tar_members, zip_members
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.decompression import CHUNK
from app.ingestion.raw_member import RawMember

MAX_MEMBERS = 10_000
_BROKEN = (
    TarError,
    BadZipFile,
    zlib.error,
    EOFError,
    OSError,
    ValueError,
    OverflowError,
    RecursionError,
    NotImplementedError,
    RuntimeError,
    LookupError,
)
"""What the readers of the standard library raise at damaged archives."""


@dataclass(frozen=True)
class Member:
    """A plain file or folder of an archive."""

    raw: RawMember
    kind: ArchiveKind

    @property
    def name(self) -> str:
        """As the archive has it: not to be trusted."""
        return self.raw.name

    @property
    def is_folder(self) -> bool:
        """True when it has no content."""
        return self.raw.open is None

    def chunks(self) -> Iterator[bytes]:
        """The content; to be read before the next member is asked for."""
        if self.raw.open is None:
            return
        read = 0
        with _reading(self.kind), closing(self.raw.open()) as content:
            while chunk := content.read(CHUNK):
                read += len(chunk)
                yield chunk
            if read != self.raw.size:
                raise EOFError(f"a member has {read} bytes instead of {self.raw.size}")


def members(archive: Path, kind: ArchiveKind, max_bytes: int) -> Iterator[Member]:
    """The members of an archive, in its order.

    Raises:
        InvalidModelError: A broken archive, too many members, or one that is no plain file or folder.
        PayloadTooLargeError: It unpacks to more than the limit, or than its size can honestly hold.
    """
    with _reading(kind):
        source = zip_members if kind is ArchiveKind.ZIP else tar_members
        for count, raw in enumerate(source.read(archive, kind, max_bytes)):
            if count >= MAX_MEMBERS:
                raise broken(kind, f"it has more than {MAX_MEMBERS} members")
            yield Member(raw, kind)


def broken(kind: ArchiveKind, reason: str) -> InvalidModelError:
    """An archive that cannot be used as it is."""
    detail = f"the .{kind} archive cannot be read: {reason}. Pack the model's folder again"
    faults = [Fault("file", "archive_invalid", detail)]
    return InvalidModelError(f"{detail}; nothing was stored", faults=faults, code="archive_invalid")


@contextmanager
def _reading(kind: ArchiveKind) -> Iterator[None]:
    """Only for generators: errors of those who iterate do not come in here."""
    try:
        yield
    except _BROKEN as error:
        raise broken(kind, str(error)[:200] or type(error).__name__) from error
