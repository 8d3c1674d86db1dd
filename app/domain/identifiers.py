"""Object ids: a prefix and a UUIDv7 in lower-case hex, sortable by time of creation.

`amg-0199…` is an amalgamation (a job), `cor-` a corpus, `mdl-` an uploaded model, `stu-` a student,
`whk-` a webhook, `dlv-` what was sent to one, `wrk-` a worker process.
They are legal as Hugging Face Hub repository names, and a student has the hex of the job that made it.
"""

import os
import re
import time
from enum import StrEnum


class Prefix(StrEnum):
    """The kind of an object, read from its id."""

    AMALGAMATION = "amg"
    CORPUS = "cor"
    MODEL = "mdl"
    STUDENT = "stu"
    KEY = "key"
    WEBHOOK = "whk"
    DELIVERY = "dlv"
    REQUEST = "req"
    WORKER = "wrk"


_ID = re.compile(r"(?P<prefix>[a-z]{3})-(?P<hex>[0-9a-f]{32})")


def new_id(prefix: Prefix) -> str:
    """A fresh id: 48 bits of Unix milliseconds, then random bits, as RFC 9562 lays a UUIDv7 out."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10))
    value = milliseconds << 80 | random
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return f"{prefix}-{value:032x}"


def has_prefix(identifier: str, prefix: Prefix) -> bool:
    """True for a well-formed id of that kind."""
    match = _ID.fullmatch(identifier)
    return match is not None and match["prefix"] == prefix


def student_of(amalgamation_id: str) -> str:
    """The id of the student which this job makes."""
    return f"{Prefix.STUDENT}-{amalgamation_id.removeprefix(f'{Prefix.AMALGAMATION}-')}"
