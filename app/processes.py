"""Processes that end with the one that started them, whatever ends that one.

`kill -9` asks nobody. On Linux the kernel tells the children (`PR_SET_PDEATHSIG`); elsewhere they look
now and then whether they have been given to another parent.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_PR_SET_PDEATHSIG = 1
_LOOK_EVERY_SECONDS = 0.5


def die_with_parent(parent: int, on_death: signal.Signals = signal.SIGKILL) -> None:
    """From now on this process gets the signal as soon as the process `parent` is gone.

    The kernel looks at the *thread* that forked: start such children from a thread that stays.

    Args:
        parent: The pid that must be our parent; when it is not any more, the signal comes at once.
        on_death: The signal.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, int(on_death)) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    else:
        threading.Thread(target=_watch, args=(parent, on_death), name="parent-watch", daemon=True).start()
    if os.getppid() != parent:  # it died before the kernel knew what we want
        os.kill(os.getpid(), on_death)


def _watch(parent: int, on_death: signal.Signals) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_SECONDS)
    os.kill(os.getpid(), on_death)


@contextmanager
def told_to_stop(tell: Callable[[], object]) -> Iterator[None]:
    """Call `tell` at SIGINT and SIGTERM, before whoever handles them now.

    A server learns by them that it must stop, but tells its application only when the last answer has
    been sent; and some answers last until they are told to end. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def both(number: int, frame: FrameType | None) -> None:
        tell()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    handled = [number for number, handler in before.items() if callable(handler)]
    for number in handled:
        signal.signal(number, both)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, before[number])


def kept(command: list[str]) -> list[str]:
    """The command line that runs a foreign program as our child that dies with us."""
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), str(os.getpid()), *command]  # noqa: PTH100


def _keep(parent: int, command: list[str]) -> int:
    """Become the program (Linux), or run it and watch over the parent (elsewhere)."""
    if sys.platform == "linux":
        die_with_parent(parent)
        os.execv(command[0], command)  # noqa: S606  (there is nothing for a shell to do)
    with subprocess.Popen(command) as program:
        signal.signal(signal.SIGTERM, lambda *_: program.terminate())
        while os.getppid() == parent and program.poll() is None:
            time.sleep(_LOOK_EVERY_SECONDS)
        if program.poll() is None:
            program.kill()
        return program.wait()


if __name__ == "__main__":
    sys.exit(_keep(int(sys.argv[1]), sys.argv[2:]))
