"""What pydantic found, as faults: a JSON pointer, a code, and a sentence that tells the cure."""

from collections.abc import Iterable, Mapping
from typing import Any

from app.domain.errors import Fault

_CURES = {
    "extra_forbidden": "there is no such field; remove it, or correct its spelling",
    "missing": "this field is required",
    "finite_number": "must be a finite number, not NaN or infinity",
    "model_attributes_type": "must be a JSON object",
    "model_type": "must be a JSON object",
    "json_invalid": "the body is not valid JSON",
    "string_unicode": "must be valid Unicode text, without lone surrogates",
}


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[Fault]:
    """Faults of a request, in the order in which pydantic met them."""
    return [_fault(error) for error in errors]


def pointer_of(location: Iterable[Any]) -> str:
    """RFC 6901, without what pydantic adds: names of union branches (`<texts>`) and `[key]`."""
    parts = [str(part) for part in location]
    kept = [part for part in parts if part != "[key]" and not (part.startswith("<") and part.endswith(">"))]
    return _printable("".join("/" + part.replace("~", "~0").replace("/", "~1") for part in kept))


def _fault(error: Mapping[str, Any]) -> Fault:
    where, *path = error["loc"] or ("body",)
    kind = str(error["type"])
    detail = _CURES.get(kind) or _printable(str(error["msg"])[:500])
    if kind == "json_invalid":
        position, reason = path[0] if path else 0, error.get("ctx", {}).get("error", "")
        return Fault("", kind, f"{_CURES[kind]}: {reason} at character {position}; correct it and send again")
    if where == "body":
        return Fault(pointer_of(path), kind, detail)
    return Fault(_printable(f"{where} {'.'.join(map(str, path))}"), kind, detail)


def _printable(text: str) -> str:
    """A client can send names with lone surrogates, which no answer can hold."""
    return text.encode("utf-8", "backslashreplace").decode()
