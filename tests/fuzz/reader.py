"""The process that reads inputs, one after the other, within limits: `python -m tests.fuzz.reader`.

Whatever a reader does to it is the parent's to tell: the file `state` has the number of the present input.
"""

import contextlib
import faulthandler
import json
import os
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from app.processes import die_with_parent
from tests.fuzz.mutate import some_bytes
from tests.fuzz.target import Input, Target
from tests.fuzz.targets import find

STATE = "state"
"""A file: the number of the present input, and the tally before it."""
SECONDS = 20
"""Of a core, for one input. Most take milliseconds, a million empty lines of CSV three seconds."""
_OUT = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.fork", "socket.connect"}
_CHANGES = {
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "os.rename",
    "os.link",
    "os.symlink",
}
_OF_TWO = {"os.rename", "os.link", "os.symlink"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


class FuzzingError(AssertionError):
    """The reader has done what it must not."""


@dataclass
class Tally:
    """How a run of inputs went."""

    read: int = 0
    refused: int = 0
    grown_bytes: int = 0


def make(target: Target, seed: int, index: int) -> Input:
    """Input number `index`, the same at every time and place: the kept seeds first, then new ones."""
    kept = target.seeds()
    if index < len(kept):
        return kept[index][1]
    rng = Random(f"{target.name} {seed} {index}")
    if kept and rng.random() < 0.05:
        _, (kind, content) = rng.choice(kept)
        return Input(kind, some_bytes(rng, content, rng.randrange(1, 4)))
    return target.make(rng)


class Reader:
    """Reads inputs of one target in a folder of its own, and looks what they have done."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._input, self._inside = folder / "input", folder / "inside"
        self._mine = os.path.realpath(folder) + os.sep
        self._watching = False
        self._before = _peak_bytes()
        self.tally = Tally()
        self._inside.mkdir(parents=True, exist_ok=True)
        sys.addaudithook(self._audit)

    def limit(self) -> None:
        """From now on the process has so many addresses and no more."""
        if self._target.address_bytes is not None:
            resource.setrlimit(resource.RLIMIT_AS, (self._target.address_bytes,) * 2)

    def read(self, case: Input) -> None:
        """Raises whatever a reader should not have raised."""
        for left in self._inside.iterdir():
            left.unlink()
        self._input.write_bytes(case.content)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            with self._watched():
                self._target.read(case, self._input, self._inside)
        except self._target.refusals as error:
            self.tally.refused += 1
            self._check_told(error)
        else:
            self.tally.read += 1
        self.tally.grown_bytes = max(0, _peak_bytes() - self._before)
        if self.tally.grown_bytes > self._target.grown_bytes:
            raise FuzzingError(f"the process has grown by {self.tally.grown_bytes >> 20} MiB")

    def _check_told(self, error: Exception) -> None:
        """A refusal says something, can be sent, and tells nothing of the server."""
        faults = [asdict(fault) for fault in getattr(error, "faults", ())]
        told = json.dumps([self._target.told(error), faults], ensure_ascii=False, allow_nan=False)
        told.encode()  # half of a surrogate pair cannot be sent
        if not str(error) or len(told) > 20_000 or "\\u0000" in told:
            raise FuzzingError(f"a refusal of {len(told)} characters: {told[:500]}") from error
        if self._mine in told:
            raise FuzzingError(f"a refusal that tells a path: {told[:500]}") from error

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        self._watching = True
        try:
            yield
        finally:
            self._watching = False

    def _audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python asks here before it opens or changes a file, and before it starts anything."""
        if not self._watching:
            return
        if event in _OUT:
            raise FuzzingError(f"a reader calls {event} {arguments!r}")
        if event in _CHANGES or (event == "open" and int(arguments[2] or 0) & _WRITES):
            for path in arguments[: 2 if event in _OF_TWO else 1]:
                if not isinstance(path, int) and not os.path.realpath(os.fsdecode(path)).startswith(
                    self._mine
                ):
                    raise FuzzingError(f"a reader leaves its folder: {event} {path!r}")


def _peak_bytes() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main(name: str, seed: str, first: str, end: str, folder: str) -> int:
    """Read the inputs `first` to `end`."""
    die_with_parent(os.getppid())
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)  # tells where it is when its time is over, and ends
    warnings.simplefilter("ignore")
    target, here = find(name), Path(folder)
    reader = Reader(target, here)
    reader.limit()
    state = os.open(here / STATE, os.O_WRONLY | os.O_CREAT)
    for index in range(int(first), int(end)):
        os.pwrite(state, _state(index, reader.tally), 0)
        try:
            reader.read(make(target, int(seed), index))
        except Exception:  # noqa: BLE001  (each is a finding, told by the parent)
            traceback.print_exc()
            return 1
    os.pwrite(state, _state(int(end), reader.tally), 0)
    return 0


def _state(index: int, tally: Tally) -> bytes:
    return b"%20d %20d %20d %20d" % (index, tally.read, tally.refused, tally.grown_bytes)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
