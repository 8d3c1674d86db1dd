"""`Range` of RFC 9110, section 14: one range of bytes. Several at once are answered with the whole."""

import re
from dataclasses import dataclass

from app.domain.errors import RangeNotSatisfiableError

_SINGLE = re.compile(r"bytes=\s*(?P<first>\d{0,18})-(?P<last>\d{0,18})\s*", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True)
class ByteRange:
    """From `start` up to `stop`."""

    start: int
    stop: int


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """What a client asks for; None: everything, also for a header that says nothing sensible.

    Raises:
        RangeNotSatisfiableError: it begins behind the end.
    """
    match = _SINGLE.fullmatch(header or "")
    if match is None or not (match["first"] or match["last"]):
        return None
    if not match["first"]:
        start, stop = max(size_bytes - int(match["last"]), 0), size_bytes
    else:
        start = int(match["first"])
        last = int(match["last"]) if match["last"] else size_bytes - 1
        if last < start and match["last"]:
            return None
        stop = min(last + 1, size_bytes)
    if start >= size_bytes:
        raise RangeNotSatisfiableError(size_bytes)
    return ByteRange(start, stop)
