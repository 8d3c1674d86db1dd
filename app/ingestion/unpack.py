"""An archive of a model becomes a flat folder with the files that a classifier needs."""

import hashlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from app.domain.errors import Fault, InvalidModelError, PayloadTooLargeError
from app.ingestion.archive_kinds import ArchiveKind
from app.ingestion.archive_members import Member, members
from app.ingestion.member_names import member_path, unsafe
from app.ingestion.model_files import CONFIG, INDEX, MAX_JSON_BYTES, TOKENIZER_CONFIG, is_wanted

_PARSED = (CONFIG, INDEX, TOKENIZER_CONFIG)
MAX_TOKENIZER_BYTES = 256 << 20
"""Of every file but the weights: the largest vocabularies have 35 MB."""
_SYSTEM = "__MACOSX"


@dataclass(frozen=True)
class UnpackedFile:
    """One file of the folder."""

    path: str
    sha256: str
    size_bytes: int


@dataclass
class Unpacked:
    """What came out of an archive."""

    files: dict[str, UnpackedFile] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)
    """Paths in the archive which are not kept."""


def unpack(archive: Path, kind: ArchiveKind, folder: Path, max_bytes: int) -> Unpacked:
    """Write the wanted files of the model's folder into `folder`, which must exist and be empty.

    Files are written under numbers and get their names afterwards, so that no name of the archive ever
    leads the way.

    Raises:
        InvalidModelError: A broken or unsafe archive, or not exactly one model folder in it.
        PayloadTooLargeError: It unpacks to more than the limit.
    """
    wanted, all_paths = _extract(archive, kind, folder, max_bytes)
    root = _root(all_paths)
    result = Unpacked()
    for path in sorted(all_paths):
        name = path[-1]
        if path in wanted and path[:-1] == root:
            (folder / str(wanted[path].number)).rename(folder / name)
            result.files[name] = UnpackedFile(name, wanted[path].sha256, wanted[path].size)
            continue
        if path in wanted:
            (folder / str(wanted[path].number)).unlink()
        result.ignored.append("/".join(path))
    return result


@dataclass(frozen=True)
class _Numbered:
    number: int
    sha256: str
    size: int


def _extract(
    archive: Path, kind: ArchiveKind, folder: Path, max_bytes: int
) -> tuple[dict[tuple[str, ...], _Numbered], set[tuple[str, ...]]]:
    """Wanted files by path, and the paths of all files."""
    wanted: dict[tuple[str, ...], _Numbered] = {}
    paths: set[tuple[str, ...]] = set()
    left = max_bytes
    with closing(_files(archive, kind, max_bytes)) as files:
        for path, member in files:
            if path in paths:
                raise unsafe(f"the archive has {'/'.join(path)!r} more than once")
            paths.add(path)
            if len(path) <= 2 and is_wanted(path[-1]):
                wanted[path] = _write(member, folder, len(paths), path[-1], left)
                left -= wanted[path].size
    return wanted, paths


def _files(archive: Path, kind: ArchiveKind, max_bytes: int) -> Generator[tuple[tuple[str, ...], Member]]:
    for member in members(archive, kind, max_bytes):
        path = member_path(member.name)
        if path and not member.is_folder:
            yield path, member


def _write(member: Member, folder: Path, number: int, name: str, left: int) -> _Numbered:
    digest, size = hashlib.sha256(), 0
    limit = _limit(name)
    with (folder / str(number)).open("xb") as file:
        for chunk in member.chunks():
            size += len(chunk)
            if size > left:
                raise PayloadTooLargeError(
                    f"the archive unpacks to more than the limit of a model: {name!r} has more than the "
                    f"{left:,} bytes that are left of it"
                )
            if size > limit:
                raise PayloadTooLargeError(
                    f"{name!r} is larger than {limit:,} bytes, the limit of such a file"
                )
            digest.update(chunk)
            file.write(chunk)
    return _Numbered(number, digest.hexdigest(), size)


def _limit(name: str) -> int:
    if name.endswith(".safetensors"):
        return 1 << 62
    return MAX_JSON_BYTES if name in _PARSED else MAX_TOKENIZER_BYTES


def _root(paths: set[tuple[str, ...]]) -> tuple[str, ...]:
    """Where config.json is: at the top, or in the only folder there."""
    if (CONFIG,) in paths:
        return ()
    tops = {path[0] for path in paths if not path[0].startswith((".", _SYSTEM))}
    if len(tops) == 1:
        root = (tops.pop(),)
        if (*root, CONFIG) in paths:
            return root
    detail = (
        "the archive must hold one Hugging Face folder: config.json at the top or in the only folder there; "
        f"at the top are {', '.join(sorted(tops)[:10]) or 'no files'}"
    )
    raise InvalidModelError(
        f"{detail}. Nothing was stored",
        faults=[Fault("file", "no_model_folder", detail)],
        code="model_invalid",
    )
