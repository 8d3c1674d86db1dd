"""What the operating system or the store says is wrong, in exceptions of whatever library has met it."""

import errno
import re
from collections.abc import Iterator

from app.storage import StoreFullError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: BaseException) -> bool:
    """True when a disk or a bucket has no room: it does not empty itself, so waiting is of no use."""
    return isinstance(error, StoreFullError) or not _FULL.isdisjoint(error_numbers(error))


def error_numbers(error: BaseException | None) -> Iterator[int]:
    """Of the operating system, in an exception and in what it was raised from."""
    while error is not None:
        number = error_number(error)
        if number is not None:
            yield number
        error = error.__cause__ or error.__context__


def error_number(error: BaseException) -> int | None:
    """Of the operating system. safetensors and tokenizers, written in Rust, have it in their message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.search(r"\(os error (\d+)\)", str(error))
    return int(told[1]) if told else None
