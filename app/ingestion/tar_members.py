"""Members of a .tar or .tar.gz, read once from front to back."""

import tarfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO, Self, cast

from app.domain.errors import PayloadTooLargeError
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.decompression import CHUNK, Compression, open_bounded
from app.ingestion.member_names import unsafe
from app.ingestion.raw_member import RawMember

OVERHEAD = 32 << 20
"""Headers and padding, on top of the content's limit."""
MAX_HEADER_BYTES = 64 << 10
"""Of a long name or of pax records, which tarfile holds in memory."""
_EXTENDED = frozenset(
    {
        tarfile.XHDTYPE,
        tarfile.XGLTYPE,
        tarfile.SOLARIS_XHDTYPE,
        tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)


def read(archive: Path, kind: ArchiveKind, max_bytes: int) -> Iterator[RawMember]:
    """All members. Raises what `tarfile` raises, and `InvalidModelError` at links, devices and the like."""
    compression = Compression.GZIP if kind is ArchiveKind.TAR_GZ else Compression.NONE
    with (
        open_bounded(archive, compression, max_bytes + OVERHEAD) as stream,
        tarfile.open(fileobj=stream, mode="r|", tarinfo=_CheckedTarInfo, bufsize=CHUNK) as tar,
    ):
        while member := tar.next():
            yield _member(tar, member, max_bytes)
            tar.members = []  # type: ignore[attr-defined]  # or they would pile up


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo, max_bytes: int) -> RawMember:
    if member.isdir():
        return RawMember(member.name, 0, None)
    if not member.isreg() or member.issparse():
        kind = "link" if member.issym() or member.islnk() else "special file"
        raise unsafe(f"the archive's member {member.name[:200]!r} is a {kind}; only plain files are unpacked")
    if member.size < 0:
        raise tarfile.ReadError("a member has an impossible size")
    if member.size > max_bytes:  # tarfile would go over it in steps, also where the file has ended long ago
        raise PayloadTooLargeError(
            f"the archive's {member.name[:200]!r} has {member.size:,} bytes; the limit is {max_bytes:,}"
        )
    return RawMember(member.name, member.size, partial(_open, tar, member))


def _open(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    return cast("IO[bytes]", tar.extractfile(member))


class _CheckedTarInfo(tarfile.TarInfo):
    """Bounds what tarfile would hold in memory, and does not take damage for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except _END:
            raise
        except _HEADER_ERROR as error:
            raise EOFError(f"a header is damaged, or the end is missing ({error})") from error

    def _proc_member(self, tar: tarfile.TarFile) -> Self:
        """The hook that tarfile offers to subclasses: called with every header."""
        if self.size < 0 or (self.type in _EXTENDED and self.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError("a header has an impossible size")
        return cast("Self", super()._proc_member(tar))  # type: ignore[misc]


_END = tarfile.EOFHeaderError  # type: ignore[attr-defined]
_HEADER_ERROR = tarfile.HeaderError
