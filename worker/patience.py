"""What a run does when the store fails: asks again, ever more rarely, for so long and no longer.

A share that is remounted, a server that is restarted: such errors pass, and hours of work should not end with
them. A full disk does not empty itself: it is told at once.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from app.storage import ArtifactStore, StoreError
from worker.lease import Lease, LeaseLostError
from worker.muka.errors import StoppedError
from worker.system_errors import error_numbers, is_full
from worker.teachers import HubSilentError

T = TypeVar("T")

_PASSING = frozenset(
    getattr(errno, name)
    for name in (
        *("EIO", "EROFS", "ESTALE", "EREMOTEIO", "ENODEV", "ENXIO", "EBUSY", "EAGAIN"),
        *("ETIMEDOUT", "ENOTCONN", "ESHUTDOWN", "ECONNREFUSED", "ECONNRESET", "ECONNABORTED"),
        *("ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EHOSTUNREACH", "ENOLINK"),
    )
    if hasattr(errno, name)  # not every system has them all
)
"""What a disk or a network file system says that may be well again in a minute."""
_WAITS_SECONDS = (0.5, 1, 2, 4, 8, 15)
"""One after the other; the last one again and again."""


@dataclass(frozen=True)
class Patience:
    """Of one attempt, with the store."""

    store: ArtifactStore
    lease: Lease
    seconds: float
    """From the first error of what is asked to its last repetition."""

    def insist(self, ask: Callable[[], T]) -> T:
        """What `ask` answers, asked again while the store is in trouble; each time a `warning` is told.

        Args:
            ask: reads or writes the store; repeated as a whole, so it leaves nothing behind when it fails.

        Raises:
            StoreError: The store is full, or was in trouble for too long.
            StoppedError: The lease has a reason to stop.
        """
        pauses: Iterator[float] | None = None
        while True:
            try:
                return ask()
            except (LeaseLostError, StoppedError, HubSilentError):
                raise
            except Exception as error:
                if (trouble := self._trouble(error)) is None:
                    raise
                pauses = pauses or _pauses(self.seconds)
                if (pause := next(pauses, None)) is None:
                    raise trouble from error
            wait(self.lease, pause, str(trouble))

    def _trouble(self, error: Exception) -> StoreError | None:
        """What is wrong with the store, if that is why `error` was raised, and it may pass."""
        if is_full(error):
            return None
        if isinstance(error, StoreError):
            return error
        if passing := set(error_numbers(error)) & _PASSING:
            return StoreError(f"the artifact store does not work: {os.strerror(min(passing))}")
        # A file that is missing, a model that seems broken: not while the whole store is away.
        try:
            self.store.check()
        except StoreError as trouble:
            return None if is_full(trouble) else trouble
        return None


def wait(lease: Lease, seconds: float, why: str) -> None:
    """Let time pass, and tell of it. Raises `StoppedError` as soon as the lease has a reason to stop."""
    if lease.should_stop():
        raise StoppedError
    lease.tell("warning", f"{why}; tried again in {seconds:.3g} s")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if lease.should_stop():
            raise StoppedError
        time.sleep(min(0.2, seconds))


def _pauses(seconds: float) -> Iterator[float]:
    """Until `seconds` from now are over, the time between them included."""
    end = time.monotonic() + seconds
    waits = iter(_WAITS_SECONDS)
    while (left := end - time.monotonic()) > 0:
        yield min(next(waits, _WAITS_SECONDS[-1]), left)
