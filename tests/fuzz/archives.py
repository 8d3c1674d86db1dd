"""Archives of models: good members under bad names, links, lies in headers, bombs."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from random import Random

from app.ingestion.archive_kinds import archive_kind
from app.ingestion.model_files import is_wanted
from app.ingestion.model_folder import check_model_folder
from app.ingestion.unpack import unpack
from tests.fuzz.mutate import LARGE, NUMBERS, STRINGS, some_bytes
from tests.fuzz.target import Input, Target
from tests.unit.app.ingestion.archives import model_files

MAX_BYTES = 8 << 20
_NAMES = (
    "../x",
    "../../config.json",
    "/tmp/config.json",
    "a/../../config.json",
    "./config.json",
    "model/config.json",
    "model/./config.json",
    "model//config.json",
    "config.json/",
    "config.json/x.json",
    "CONFIG.JSON",
    "C:/config.json",
    "\\\\host\\config.json",
    "..\\config.json",
    "config.json\0.txt",
    "conﬁg.json",
    "tokenizer.json ",
    "~/config.json",
    "a" * 300 + ".model",
    "a/" * 200 + "config.json",
    "__MACOSX/config.json",
    ".",
    "..",
    "",
    "/",
    "1",
    "nul.model",
    "x.safetensors",
    "pytorch_model.bin",
)
_TAR_TYPES = (
    *(tarfile.REGTYPE,) * 8,
    *(tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE),
    *(tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE, tarfile.AREGTYPE, tarfile.XHDTYPE, tarfile.XGLTYPE),
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.SOLARIS_XHDTYPE, b"V", b"M", b"Z", b"\xff"),
)
_PAX = (
    "path",
    "linkpath",
    "size",
    "GNU.sparse.map",
    "GNU.sparse.major",
    "GNU.sparse.name",
    "GNU.sparse.size",
    "mtime",
    "uid",
)
_TAR_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "type": (156, 1),
}
_TAR_FIELDS |= {"linkname": (157, 100), "magic": (257, 8), "prefix": (345, 155), "sparse": (386, 97)}
_ZIP_RECORDS = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")
_OUTSIDE = "muka-fuzz-outside"
"""Whoever writes a file of this name has left the folder."""


def make(rng: Random) -> Input:
    """One of the three kinds."""
    kind = rng.choice(("tar", "tar.gz", "zip"))
    content = _zip(rng) if kind == "zip" else _tar(rng)
    if rng.random() < 0.5:
        content = some_bytes(rng, content, rng.randrange(1, 4))
    if kind == "tar.gz":
        content = gzip.compress(content, 1, mtime=0)
        if rng.random() < 0.2:
            content = some_bytes(rng, content, rng.randrange(1, 3))
    return Input(kind, content)


def read(case: Input, path: Path, folder: Path) -> None:
    """As `POST /models` does: unpack, and check what came out."""
    unpacked = unpack(path, archive_kind(filename=f"x.{case.kind}", media_type=None), folder, MAX_BYTES)
    present = {each.name: each for each in folder.iterdir()}
    assert present.keys() == unpacked.files.keys()
    for name, each in present.items():
        assert is_wanted(name)
        assert each.is_file()
        assert not each.is_symlink()
        assert each.stat().st_size == unpacked.files[name].size_bytes
    assert sum(file.size_bytes for file in unpacked.files.values()) <= MAX_BYTES
    check_model_folder(folder, {name.rpartition("/")[2] for name in unpacked.ignored} | unpacked.files.keys())


def _members(rng: Random) -> list[tuple[str, bytes]]:
    root = rng.choice(("", "", "model/"))
    found = [(root + name, content) for name, content in model_files().items()]
    for _ in range(rng.choice((0, 0, 1, 2, 4))):
        name = rng.choice((*_NAMES, *STRINGS, f"../{_OUTSIDE}", f"/tmp/{_OUTSIDE}"))
        found.insert(rng.randrange(len(found) + 1), (name, rng.choice((b"", b"{}", b"x" * 700))))
    if rng.random() < 0.1:
        found.append(rng.choice(found))
    if rng.random() < 0.003:
        found += [(f"e{number}/", b"") for number in range(rng.choice((1000, 10_001)))]
    if rng.random() < 0.005:
        found.append((f"{root}big.model", bytes(rng.choice((MAX_BYTES - 700, MAX_BYTES, 2 * MAX_BYTES)))))
    return found


def _tar(rng: Random) -> bytes:
    out = io.BytesIO()
    style = rng.choice((tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT))
    for name, content in _members(rng):
        member = tarfile.TarInfo(name)
        member.size = len(content)
        if rng.random() < 0.15:
            member.type = rng.choice(_TAR_TYPES)
            member.linkname = rng.choice(("config.json", "../..", "/etc/passwd", ""))
        if rng.random() < 0.1:
            member.pax_headers = {
                rng.choice(_PAX): str(rng.choice((*STRINGS, *NUMBERS, *LARGE, -1, "0,1,2")))
            }
        try:
            header = bytearray(member.tobuf(style, errors="surrogateescape"))
        except (ValueError, UnicodeError):
            continue
        if rng.random() < 0.15:
            _lie(rng, header)
        out.write(bytes(header) + content + bytes(-len(content) % 512))
    out.write(bytes(rng.choice((0, 512, 1024, 10240))))
    return out.getvalue()


def _lie(rng: Random, header: bytearray) -> None:
    """One field of the last header, and a checksum that says it is right."""
    start = len(header) - 512
    at, size = rng.choice(list(_TAR_FIELDS.values()))
    number = rng.choice((*NUMBERS, *LARGE))
    told = rng.choice(
        (
            b"%o" % number,
            b"-1",
            b"\x80" + (number % 2**64).to_bytes(8),
            b"\xff" * size,
            rng.randbytes(size),
            rng.choice(_TAR_TYPES),
            rng.choice(_NAMES).encode(),
        )
    )
    header[start + at : start + at + size] = told[:size].ljust(size, b"\0")
    header[start + 148 : start + 156] = b" " * 8
    header[start + 148 : start + 156] = b"%06o\0 " % sum(header[start:])


def _zip(rng: Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in _members(rng):
            info = zipfile.ZipInfo("x")
            info.filename = name.encode("utf-8", "replace").decode()
            info.compress_type = rng.choice(
                (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
            )
            info.external_attr = (
                rng.choice((0o100644, 0o100644, 0o100644, 0, 0o120777, 0o040755, 0o010644)) << 16
            )
            if rng.random() < 0.05:
                info.extra = struct.pack(
                    "<HH", rng.choice((1, 0x7075, 9)), rng.choice((0, 8, 24, 65000))
                ) + rng.randbytes(8)
            archive.writestr(info, content)
    data = bytearray(out.getvalue())
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        _lie_in_zip(rng, data)
    return bytes(data)


def _lie_in_zip(rng: Random, data: bytearray) -> None:
    """A number of two or four bytes in one of the records."""
    record, places = rng.choice(_ZIP_RECORDS), []
    at = data.find(record)
    while at >= 0:
        places.append(at)
        at = data.find(record, at + 4)
    if places:
        place, size = rng.choice(places) + rng.randrange(4, 46), rng.choice((2, 4))
        data[place : place + size] = (rng.choice((*NUMBERS, *LARGE, len(data))) % 2 ** (8 * size)).to_bytes(
            size, "little"
        )


ARCHIVES = Target("archives", make, read, grown_bytes=128 << 20)
