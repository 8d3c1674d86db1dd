"""Text of clients that goes into the database, which takes neither NUL nor half of a surrogate pair."""

import unicodedata

MAX_NAME_CHARS = 200


def is_storable(text: str) -> bool:
    """True for what every database and every JSON reader takes."""
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def display_name(filename: str | None) -> str | None:
    """An uploaded file's name, without folders and control characters; None when nothing is left."""
    base = (filename or "").replace("\\", "/").rpartition("/")[2]
    kept = "".join(c for c in base if unicodedata.category(c) not in {"Cc", "Cf", "Cs"})
    return kept.strip()[:MAX_NAME_CHARS] or None
