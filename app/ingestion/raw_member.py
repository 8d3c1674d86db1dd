"""One member of an archive, as the readers of tar and zip find it."""

from collections.abc import Callable
from typing import IO, NamedTuple


class RawMember(NamedTuple):
    """Name and size are what the archive says."""

    name: str
    size: int
    open: Callable[[], IO[bytes]] | None
    """None: a folder."""
