"""Names inside an archive: nothing that could point out of the folder, on any operating system."""

import re
import unicodedata

from app.domain.errors import Fault, InvalidModelError

MAX_CHARS = 500
MAX_PART_BYTES = 255
"""What file systems take for one name."""
_DRIVE = re.compile(r"[A-Za-z]:")


def member_path(name: str) -> tuple[str, ...]:
    """The parts of a member's relative path; empty for the archive's own root (`./`).

    Raises:
        InvalidModelError: `archive_unsafe`: absolute, with `..`, a drive, a backslash or control characters.
    """
    parts = unicodedata.normalize("NFC", name).split("/")
    problem = _problem(name, parts)
    if problem:
        shown = name[:200].encode("utf-8", "backslashreplace").decode()
        raise unsafe(f"the archive's member {shown!r} {problem}")
    return tuple(part for part in parts if part not in {"", "."})


def unsafe(detail: str) -> InvalidModelError:
    """An archive that no honest program writes."""
    cure = "pack the model's folder again: tar -czf model.tar.gz -C FOLDER ."
    faults = [Fault("file", "archive_unsafe", detail)]
    return InvalidModelError(
        f"{detail}; nothing was stored. To cure it, {cure}", faults=faults, code="archive_unsafe"
    )


def _problem(name: str, parts: list[str]) -> str | None:
    if len(name) > MAX_CHARS or any(len(part.encode("utf-8", "replace")) > MAX_PART_BYTES for part in parts):
        return (
            f"has a name of more than {MAX_CHARS} characters, or {MAX_PART_BYTES} bytes in one of its parts"
        )
    if name.startswith("/") or _DRIVE.match(name):
        return "has an absolute path"
    if "\\" in name:
        return "has a backslash in its name"
    if ".." in name.split("/"):
        return "points out of the folder (`..`)"
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in name):
        return "has control characters in its name"
    return None
