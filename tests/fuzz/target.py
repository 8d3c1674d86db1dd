"""What is fuzzed: a maker of inputs, and the door that reads them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from app.domain.errors import MukaError

SEEDS = Path(__file__).with_name("seeds")
"""Inputs that have found something: `<target>/<what it is>.<kind>`."""


class Input(NamedTuple):
    """One file as a user might send it."""

    kind: str
    """Its ending, without the first dot."""
    content: bytes


@dataclass(frozen=True)
class Target:
    """A door, and what may come out of it."""

    name: str
    make: Callable[[Random], Input]
    """A new input: built by the format's rules, broken here and there."""
    read: Callable[[Input, Path, Path], None]
    """Given the input, its file and an empty folder. Raises one of `refusals`, or returns, or has a bug."""
    grown_bytes: int
    """How much the process may grow by reading."""
    refusals: tuple[type[Exception], ...] = (MukaError,)
    told: Callable[[Exception], str] = str
    """What the user reads of a refusal."""
    aside: Callable[[Input, Path], None] | None = None
    """For what the service reads in a process of its own: that way. The process may die of an input here;
    there its death must be a refusal."""
    address_bytes: int | None = 3 << 30
    """Limit of the process' addresses."""
    share: float = 1
    """Of the inputs that are asked for: fewer where each takes long."""

    @cache  # noqa: B019  (targets live as long as the process)
    def seeds(self) -> Sequence[tuple[str, Input]]:
        """The kept ones: name and input."""
        paths = sorted((SEEDS / self.name).glob("*"))
        return [(path.name, Input(path.name.split(".", 1)[1], path.read_bytes())) for path in paths]
