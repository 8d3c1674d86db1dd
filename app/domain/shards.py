"""The parts into which the scoring of a job is cut, so that several workers can share it."""

from enum import StrEnum
from typing import NamedTuple

TOGETHER = -1
"""In place of a teacher's number: adaptive sampling compares the teachers, so one worker asks all of them."""


class Unit(NamedTuple):
    """What one worker computes at a time: what a teacher says about one shard of the corpus."""

    teacher: int
    """Its place in the recipe, or `TOGETHER`."""
    shard: int


class ShardStatus(StrEnum):
    """Of a unit that is open to other workers."""

    OPEN = "open"
    """Whoever comes may take it."""
    TAKEN = "taken"
    """A worker computes it. One whose lease runs out is left to the holder of the job."""
    DONE = "done"
    """Its outputs are stored."""
