"""`muka serve` as a process of ours: a free port, a folder of its own, and gone when we are."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.processes import kept

READY = re.compile(r"ready at (http://\S+)")
START_SECONDS = 60.0
STOP_SECONDS = 30.0


class ServiceNotStartedError(Exception):
    """`muka serve` ended, or was not ready in time; its log says why."""


@dataclass(frozen=True)
class EmbeddedService:
    """A running service."""

    url: str
    log: Path
    """What it says, with the worker's words."""


@contextmanager
def embedded_service(folder: Path) -> Iterator[EmbeddedService]:
    """Start it, wait until it is ready, and stop it at the end.

    Args:
        folder: for its data and its log.

    Raises:
        ServiceNotStartedError: it is not ready after a minute.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "service.log"
    command = kept([sys.executable, "-m", "app.cli", "serve", "--port", "0"])
    # A session of its own: Ctrl-C comes to us alone, and we end it in good order.
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=_environment(folder / "data"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield EmbeddedService(_url_of(process, log), log)
    finally:
        _stop(process)


def log_tail(log: Path, lines: int = 30) -> str:
    """The last words of the service, to find out what went wrong."""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:]) if log.exists() else ""


def _environment(data: Path) -> dict[str, str]:
    """The shell's, without its settings of muka: the service must be the embedded one."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("MUKA_")}
    # Progress is written with the heartbeat: often, for a bar that people look at.
    chosen = {"MUKA_DATA_DIR": str(data), "MUKA_HEARTBEAT_SECONDS": "2", "PYTHONUNBUFFERED": "1"}
    return inherited | chosen


def _url_of(process: subprocess.Popen[bytes], log: Path) -> str:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until and process.poll() is None:
        if found := READY.search(log.read_text(errors="replace")):
            return found[1]
        time.sleep(0.1)
    how = "was not ready in time" if process.poll() is None else f"ended with status {process.returncode}"
    raise ServiceNotStartedError(f"`muka serve` {how}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
