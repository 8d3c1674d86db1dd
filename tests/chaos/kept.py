"""A command of muka that is started again whenever it ends, as the supervisor of a production does."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from app.processes import kept
from tests.e2e.service import ROOT, descendants
from tests.servers import wait_until

PAUSE_SECONDS = 0.2
STOP_SECONDS = 60
ATTEMPT = r"-m worker(\.helper)? amg-"
"""The command line of a worker's child, which runs one attempt, or helps another one to score."""


class Kept:
    """One of `muka …`, by whatever process it is carried out just now. It dies with us."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        folder: Path,
        environment: Mapping[str, str],
        *,
        within: Sequence[str] = (),
    ) -> None:
        """`within`: what stands before the command, for instance `nsenter …`."""
        self.log = folder / f"{name}.log"
        self.starts = 0
        self._command = kept([*within, sys.executable, "-m", "app.cli", *arguments])
        self._environment = {**os.environ, **environment, "PYTHONUNBUFFERED": "1"}
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._lock = threading.Lock()
        # The kernel ends children with the thread that started them: this one stays as long as they do.
        self._thread = threading.Thread(target=self._keep, name=f"keeps {name}", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self.log.touch()
        self._wanted = True
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end; it must do so in time."""
        with self._lock:
            self._wanted = False
            if self._process is not None:
                self._process.terminate()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive():
            self.kill()
            raise TimeoutError(f"not within {STOP_SECONDS} s of SIGTERM: the end of it. {self.output()}")

    def kill(self) -> int:
        """`kill -9`; answers whom it met."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        return pid

    @property
    def pid(self) -> int:
        """Of the present process, which is there or starts again in a moment."""
        process = wait_until(lambda: self._process, "it is started")
        if process.poll() is not None:
            process = wait_until(lambda: self._successor(process), "it is started again")
        return process.pid

    @property
    def attempt(self) -> int | None:
        """Pid of the child that runs an attempt; None when it has none just now."""
        return next((pid for pid, line in descendants(self.pid) if re.search(ATTEMPT, line)), None)

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It and all its children stand still while the block runs."""
        pids = [self.pid, *(pid for pid, _ in descendants(self.pid))]
        for pid in pids:
            _signal(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                _signal(pid, signal.SIGCONT)

    def output(self) -> str:
        """What it and its children said so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def _successor(self, of: subprocess.Popen[bytes]) -> subprocess.Popen[bytes] | None:
        return self._process if self._process is not of else None

    def _keep(self) -> None:
        while (process := self._next()) is not None:
            process.wait()
            time.sleep(PAUSE_SECONDS)

    def _next(self) -> subprocess.Popen[bytes] | None:
        with self._lock, self.log.open("ab") as output:
            if not self._wanted:
                return None
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )
            self.starts += 1
            return self._process


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
