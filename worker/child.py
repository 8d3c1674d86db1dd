"""The process that runs one attempt: started, told to stop, and its end read. No torch in here."""

import logging
import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import FrameType
from typing import Self

from app.settings import Settings
from worker.cores import usable_cores

log = logging.getLogger(__name__)

LOST = 3
"""Exit status of an attempt that does not hold its job any more."""


class StopSwitch:
    """Turns SIGTERM, a warm stop, into a wish that the running attempt is told of, whenever it comes."""

    def __init__(self, stop_seconds: float) -> None:
        """`stop_seconds`: after which an attempt that has not ended is killed; it goes on elsewhere."""
        self.requested = False
        self._stop_seconds = stop_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGTERM, self._request)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._before)

    def guard(self, child: subprocess.Popen[bytes]) -> None:
        """From now on it is this process that is told."""
        self._child = child
        if self.requested:
            self._tell(child)

    def _request(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
        if self._child is not None:
            self._tell(self._child)

    def _tell(self, child: subprocess.Popen[bytes]) -> None:
        """It may be deaf for a while, in a download or an import."""
        child.send_signal(signal.SIGTERM)
        end = threading.Timer(self._stop_seconds, child.kill)
        end.daemon = True
        end.start()


@dataclass(frozen=True)
class Lost:
    """An attempt whose process did not write down how it ended."""

    why: str
    """In a few words."""
    stopped: bool
    """It was asked to stop and could not listen: no loss."""


def run_attempt(settings: Settings, job_id: str, attempt: int, stop: StopSwitch) -> Lost | None:
    """Run `python -m worker ID ATTEMPT` to its end; None when the row tells how that was.

    It has its own process group, so that Ctrl-C in a terminal does not reach it, and dies with this one.
    """
    status = _run(settings, ["worker", job_id, str(attempt)], stop)
    log.info("attempt %d of %s ended with %d", attempt, job_id, status)
    if status in (0, LOST):
        return None
    return Lost(_how(status), stop.requested and status in (-signal.SIGTERM, -signal.SIGKILL))


def run_helper(settings: Settings, job_id: str, attempt: int, worker: str, stop: StopSwitch) -> bool:
    """Run `python -m worker.helper ID ATTEMPT WORKER` likewise; False: it could not help, or was lost."""
    status = _run(settings, ["worker.helper", job_id, str(attempt), worker], stop)
    log.info("the help with attempt %d of %s ended with %d", attempt, job_id, status)
    return status == 0


def _run(settings: Settings, module: list[str], stop: StopSwitch) -> int:
    child = subprocess.Popen([sys.executable, "-m", *module], env=_environment(settings), process_group=0)
    stop.guard(child)
    return child.wait()


def thread_count(settings: Settings) -> int:
    """Cores for one run: the setting, or all that this process may use."""
    return settings.threads if settings.threads is not None else usable_cores()


def thread_environment(settings: Settings) -> dict[str, str]:
    """Threads of OpenMP (torch) and rayon (tokenizers) must be counted before they are loaded.

    OpenMP's that spin would steal cores from each other.
    """
    counted = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "0")}
    for name in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):
        if settings.threads is not None or name not in os.environ:
            counted[name] = str(thread_count(settings))
    return counted


def _environment(settings: Settings) -> dict[str, str]:
    return {**os.environ, **thread_environment(settings), "MUKA_DIE_WITH_PARENT": str(os.getpid())}


def _how(status: int) -> str:
    if status < 0:
        name = signal.Signals(-status).name
        hint = ", as the kernel does when memory runs out" if -status == signal.SIGKILL else ""
        return f"its process was ended by {name}{hint}"
    return f"its process ended with status {status}"
