"""A real `muka serve` (or `muka worker`) process, and what a test wants to know of its children."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.servers import wait_until

ROOT = Path(__file__).parents[2]
QUICK = {
    # Long leases: a test that finishes quickly shows that nobody waited for one to run out.
    "MUKA_LEASE_SECONDS": "60",
    "MUKA_HEARTBEAT_SECONDS": "1",
    "MUKA_CARETAKER_SECONDS": "0.3",
    "MUKA_CHECKPOINT_SECONDS": "0.2",
    "MUKA_THREADS": "1",
    "MUKA_STOP_SECONDS": "20",
}


@dataclass
class Muka:
    """A running command."""

    process: subprocess.Popen[bytes]
    log: Path

    def output(self) -> str:
        """What it and its children said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def url(self) -> str:
        """Of the API, once it is announced."""

        def announced() -> str | None:
            assert self.process.poll() is None, self.output()
            found = re.search(r"ready at (http://\S+)", self.output())
            return found[1] if found else None

        return wait_until(announced, "the service announces its address")

    def child(self, pattern: str) -> int:
        """Pid of the descendant whose command line matches, once there is one."""
        return wait_until(
            lambda: next(
                (pid for pid, line in descendants(self.process.pid) if re.search(pattern, line)), None
            ),
            f"a process like {pattern}",
        )


@contextmanager
def muka(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Iterator[Muka]:
    """Run `muka …`; it must end within 60 s of SIGTERM."""
    log = folder / f"{arguments[0]}-{os.urandom(3).hex()}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *arguments],
            cwd=ROOT,
            env={**os.environ, **QUICK, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield Muka(process, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()
            process.wait()


@contextmanager
def serving(data_dir: Path, **environment: str) -> Iterator[Muka]:
    """An embedded service that answers."""
    data_dir.mkdir(exist_ok=True)
    with muka(["serve", "--port", "0"], data_dir, {"MUKA_DATA_DIR": str(data_dir), **environment}) as service:
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        yield service


def descendants(pid: int) -> list[tuple[int, str]]:
    """Pid and command line of all processes below this one."""
    listing = subprocess.run(
        ["ps", "-axwwo", "pid=,ppid=,command="], capture_output=True, check=True, text=True
    )
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    children: dict[int, list[tuple[int, str]]] = {}
    for own, parent, line in rows:
        children.setdefault(int(parent), []).append((int(own), line))
    found = list(children.get(pid, ()))
    for own, _ in found:  # grows meanwhile; numbers of processes start anew, so their order tells nothing
        found += children.get(own, ())
    return found


def is_alive(pid: int) -> bool:
    """False once its last thread has ended: only then are its sockets closed. It may wait to be reaped."""
    threads = ["-L"] if sys.platform == "linux" else []
    command = ["ps", *threads, "-o", "stat=", "-p", str(pid)]
    states = subprocess.run(command, capture_output=True, check=False, text=True).stdout.split()
    return any(not state.startswith(("Z", "X")) for state in states)
