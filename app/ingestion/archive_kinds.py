"""Which archive a model comes in: said by its name or its media type; never guessed."""

from enum import StrEnum

from app.domain.errors import UnsupportedFormatError


class ArchiveKind(StrEnum):
    """The archives that muka reads."""

    TAR = "tar"
    TAR_GZ = "tar.gz"
    ZIP = "zip"


_ENDINGS = {
    ".tar": ArchiveKind.TAR,
    ".tar.gz": ArchiveKind.TAR_GZ,
    ".tgz": ArchiveKind.TAR_GZ,
    ".zip": ArchiveKind.ZIP,
}
_MEDIA_TYPES = {
    "application/x-tar": ArchiveKind.TAR,
    "application/gzip": ArchiveKind.TAR_GZ,
    "application/x-gzip": ArchiveKind.TAR_GZ,
    "application/zip": ArchiveKind.ZIP,
}


def archive_kind(*, filename: str | None, media_type: str | None) -> ArchiveKind:
    """By the file's ending, else by its media type; never guessed.

    Raises:
        UnsupportedFormatError: Neither says one that muka reads.
    """
    name = (filename or "").lower()
    found = next((kind for ending, kind in _ENDINGS.items() if name.endswith(ending)), None)
    if found is None and "." not in name:
        found = _MEDIA_TYPES.get((media_type or "").partition(";")[0].strip().lower())
    if found is None:
        raise UnsupportedFormatError(
            f"{(filename or media_type or 'a file without name')[:200]!r} is not read as a model; "
            "send a .tar, .tar.gz, .tgz or .zip of a Hugging Face folder"
        )
    return found
