"""Ends the process of an attempt that stands still: it cannot be asked to stop, for it does not listen.

Two watches, for a thread can be stuck in two ways. In native code or in a system call other threads still
run: one of them writes the end down and leaves. Where native code keeps the interpreter to itself no Python
runs at all, the lease among it: then faulthandler's own thread ends the process, and the parent tells.
"""

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from worker.child import LOST
from worker.lease import Lease, LeaseLostError

log = logging.getLogger(__name__)

_LOOK_EVERY_SECONDS = 1.0
FROZEN_GRACE_SECONDS = 60
"""How much longer than its lease a process in which no Python runs at all is left alone."""


@contextmanager
def watched(
    lease: Lease, settle: Callable[[], None], *, stall_seconds: float, frozen_seconds: float
) -> Iterator[None]:
    """While the block runs, a standstill ends the process, with the stacks of all threads in its log.

    Args:
        lease: knows when the attempt last made progress.
        settle: writes down how the attempt ends, fenced. Raises `LeaseLostError`.
        stall_seconds: without progress for this long.
        frozen_seconds: without any Python for this long; more than the lease lasts, which is lost by then.
    """
    done = threading.Event()
    arguments = (lease, settle, stall_seconds, frozen_seconds, done)
    thread = threading.Thread(target=_watch, args=arguments, name="stall-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()


def _watch(
    lease: Lease,
    settle: Callable[[], None],
    stall_seconds: float,
    frozen_seconds: float,
    done: threading.Event,
) -> None:
    while not done.wait(min(_LOOK_EVERY_SECONDS, stall_seconds / 4)):
        faulthandler.dump_traceback_later(frozen_seconds, exit=True)
        if time.monotonic() - lease.moved_at > stall_seconds:
            _leave(settle, stall_seconds)


def _leave(settle: Callable[[], None], stall_seconds: float) -> None:
    """`os._exit`: nothing that is stuck can be waited for."""
    status = 1
    try:
        log.error("no progress for %g s; the stacks of all threads follow", stall_seconds)
        faulthandler.dump_traceback(all_threads=True)
        settle()
        status = 0
    except LeaseLostError as error:
        log.warning("%s", error)
        status = LOST
    except Exception:
        log.exception("the standstill could not be written down: that is left to the parent")
    finally:
        os._exit(status)
