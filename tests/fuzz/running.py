"""Reads so many inputs of a target in processes of its own, and gathers what went wrong."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.reader import STATE, make
from tests.fuzz.target import Target
from tests.fuzz.targets import find

SILENT_SECONDS = 600
"""Without a next input: a reader that waits for something, and takes no time of a core."""
MANY = 20
"""A run ends after so many findings."""


@dataclass(frozen=True)
class Finding:
    """An input that was not read as it should be."""

    index: int
    why: str


@dataclass
class Result:
    """How a run went."""

    inputs: int
    read: int = 0
    refused: int = 0
    deaths: int = 0
    """Of readers, where the service reads in a process of its own; each is a refusal, too."""
    grown_bytes: int = 0
    seconds: float = 0
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class _Stop:
    """Where and how a reader stopped before the end."""

    index: int
    died: bool
    why: str


def run(name: str, count: int, seed: int = 1, *, first: int = 0) -> Result:
    """The inputs from number `first`, `count` of them."""
    target, result, started = find(name), Result(count), time.monotonic()
    left = range(first, first + count)
    with _folder() as folder:
        while left and len(result.findings) < MANY:
            stop = _read(target, seed, left, folder, result)
            if stop is None:
                break
            left = range(stop.index + 1, left.stop)
            if stop.died and _is_refused_aside(target, seed, stop.index, folder):
                result.deaths += 1
            else:
                result.findings.append(Finding(stop.index, stop.why))
    result.seconds = time.monotonic() - started
    return result


def _read(target: Target, seed: int, inputs: range, folder: Path, result: Result) -> _Stop | None:
    state, log = folder / STATE, folder / "log"
    state.write_text("")
    arguments = map(str, (target.name, seed, inputs.start, inputs.stop, folder))
    with log.open("wb") as out:
        command = [sys.executable, "-m", "tests.fuzz.reader", *arguments]
        reader = subprocess.Popen(command, stdout=out, stderr=out)
        try:
            _wait(reader, state)
        finally:
            reader.kill()
            reader.wait()
    told = log.read_text("utf-8", "replace")[-4000:]
    if not state.read_text():
        raise RuntimeError(f"the reader of {target.name} did not start:\n{told}")
    index, read, refused, grown = map(int, state.read_text().split())
    result.read, result.refused = result.read + read, result.refused + refused
    result.grown_bytes = max(result.grown_bytes, grown)
    if reader.returncode == 0:
        return None
    if reader.returncode in (-signal.SIGPROF, -signal.SIGTERM):
        return _Stop(index, died=False, why=f"it takes for ever\n{told}")
    return _Stop(index, died=reader.returncode < 0, why=f"ended with {reader.returncode}\n{told}")


def _is_refused_aside(target: Target, seed: int, index: int, folder: Path) -> bool:
    """True where the service has a process for such files, whose death is a refusal of the file."""
    if target.aside is None:
        return False
    try:
        target.aside(make(target, seed, index), folder)
    except target.refusals:
        return True
    return False


def _wait(reader: subprocess.Popen[bytes], state: Path) -> None:
    """For its end; one that is silent is ended."""
    last, since = "", time.monotonic()
    while reader.poll() is None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            reader.wait(1)
        if (now := state.read_text()) != last:
            last, since = now, time.monotonic()
        if time.monotonic() - since > SILENT_SECONDS:
            reader.terminate()
            reader.wait()


@contextmanager
def _folder() -> Iterator[Path]:
    """In memory where there is such a place: a hundred thousand small files come and go."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="muka-fuzz-", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
