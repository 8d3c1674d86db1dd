"""A child process that is started again, with back-off, whenever it dies; or whenever it is needed."""

import logging
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 30.0
_GOOD_RUN_SECONDS = 60.0
"""A process that lived that long is no process that cannot start."""


class KeptProcess:
    """Starts the process from a thread of its own, which stays as long as the process does.

    The kernel ends children with the *thread* that started them (`app.processes.die_with_parent`).
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str] | None = None,
        stop_seconds: float,
        before_restart: Callable[[], None] = lambda: None,
        until_needed: Callable[[threading.Event], None] | None = None,
    ) -> None:
        """
        Args:
            name: for people.
            command: the process; its own process group, so that Ctrl-C comes to us alone.
            environment: of the process; ours when empty.
            stop_seconds: from SIGTERM to SIGKILL.
            before_restart: called when the process died without being asked to.
            until_needed: returns when the process is needed, or the event says that it never will be. A
                process that has one may end by itself, with 0.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._name = name
        self._command = list(command)
        self._environment = environment
        self._stop_seconds = stop_seconds
        self._before_restart = before_restart
        self._until_needed = until_needed
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run, name=f"keeps the {name}", daemon=True)

    def start(self) -> None:
        """Returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end, end it when it does not, and return when it is gone."""
        with self._lock:
            self._stopping.set()
            if self._process is not None:
                self._process.terminate()
        self._thread.join(self._stop_seconds)
        if self._process is not None and self._thread.is_alive():
            log.warning("the %s did not stop within %s s and is ended", self._name, self._stop_seconds)
            self._process.kill()
        self._thread.join()

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        while True:
            if self._until_needed is not None:
                self._until_needed(self._stopping)
            with self._lock:
                if self._stopping.is_set():
                    return
                self._process = subprocess.Popen(
                    self._command, env=self._environment, process_group=0, stdin=subprocess.DEVNULL
                )
            started = time.monotonic()
            status = self._process.wait()
            if self._stopping.is_set():
                return
            if status == 0 and self._until_needed is not None:
                continue
            if time.monotonic() - started > _GOOD_RUN_SECONDS:
                pause = FIRST_PAUSE_SECONDS
            log.warning("the %s ended with %d and starts again in %.1f s", self._name, status, pause)
            self._tell()
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _tell(self) -> None:
        try:
            self._before_restart()
        except Exception:
            # Whatever fails here, a restart is what helps most; leases run out by themselves.
            log.exception("after the end of the %s", self._name)
