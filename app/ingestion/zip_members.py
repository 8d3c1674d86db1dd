"""Members of a .zip."""

import io
import stat
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from app.domain.errors import PayloadTooLargeError
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.decompression import FREE_BYTES, MAX_RATIO
from app.ingestion.member_names import unsafe
from app.ingestion.raw_member import RawMember

MAX_READ = 2 << 20
"""The directory of a zip is read as one, and each of its entries takes a kilobyte of memory."""
_PLAIN = (0, stat.S_IFREG, stat.S_IFDIR)
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read(archive: Path, _kind: ArchiveKind, max_bytes: int) -> Iterator[RawMember]:
    """All members. Raises what `zipfile` raises, and `InvalidModelError` at links, devices and the like."""
    with io.FileIO(archive) as raw, _Bounded(raw) as file, zipfile.ZipFile(file) as opened:
        _refuse_bombs(opened, archive.stat().st_size, max_bytes)
        for info in opened.infolist():
            yield _member(opened, info)


def _refuse_bombs(opened: zipfile.ZipFile, size: int, max_bytes: int) -> None:
    """By what the directory says; of no member is more read than that."""
    unpacked = sum(info.file_size for info in opened.infolist())
    if sum(info.compress_size for info in opened.infolist()) > size:
        raise zipfile.BadZipFile("its members overlap")
    if unpacked > max_bytes:
        raise PayloadTooLargeError(f"the archive unpacks to {unpacked:,} bytes; the limit is {max_bytes:,}")
    if unpacked > FREE_BYTES and unpacked > MAX_RATIO * size:
        raise PayloadTooLargeError(
            f"the archive unpacks to {unpacked:,} bytes, more than {MAX_RATIO} times its size, the limit; "
            "send it as a .tar"
        )


def _member(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> RawMember:
    if stat.S_IFMT(info.external_attr >> 16) not in _PLAIN:
        kind = "link" if stat.S_ISLNK(info.external_attr >> 16) else "special file"
        raise unsafe(
            f"the archive's member {info.orig_filename[:200]!r} is a {kind}; only plain files are unpacked"
        )
    if info.flag_bits & 0x1:
        raise zipfile.BadZipFile("it is encrypted")
    if info.compress_type not in _METHODS:
        raise zipfile.BadZipFile("it is compressed by another method than deflate")
    if info.is_dir():
        return RawMember(info.orig_filename, 0, None)
    return RawMember(info.orig_filename, info.file_size, partial(opened.open, info))


class _Bounded(io.BufferedReader):
    """A file of which nothing large is read at once, whatever its directory says."""

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(MAX_READ + 1 if size is None or size < 0 else min(size, MAX_READ + 1))
        if len(data) > MAX_READ:
            raise zipfile.BadZipFile("its directory is too large")
        return data
