"""Looks after jobs that nobody else looks after: leases that ran out, messages that were never sent.

A job is claimed from `queued` only. One whose lease has run out goes back to the queue here first, so that
the loss is counted and told; two caretakers at once are harmless (compare-and-set, duplicate messages).
"""

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from app.persistence import amalgamations
from app.persistence.losses import settle_loss
from app.services.backend import Backend

log = logging.getLogger(__name__)


def reap(backend: Backend) -> int:
    """Settle every job whose worker has fallen silent; returns how many."""
    with backend.database.read() as session:
        silent = amalgamations.expired_leases(session)
    settled = 0
    for job_id, _, attempt, _ in silent:
        with backend.database.write() as session:
            status = settle_loss(
                session,
                job_id,
                attempt,
                "its worker fell silent",
                max_attempts=backend.settings.max_attempts,
                where=amalgamations.lease_expired(),
            )
        settled += status is not None
    return settled


def dispatch(backend: Backend) -> int:
    """Send every queued job that was not sent, or so long ago that the message may be lost.

    Raises:
        kombu.exceptions.OperationalError: The broker does not answer; the jobs stay undispatched.
    """
    with backend.database.read() as session:
        waiting = amalgamations.undispatched(session, backend.settings.dispatch_again_seconds)
    for job_id in waiting:
        backend.queue.enqueue(job_id)
        with backend.database.write() as session:
            amalgamations.mark_dispatched(session, job_id)
    return len(waiting)


class Caretaker:
    """A thread that reaps and dispatches every `caretaker_seconds`, through every outage."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="caretaker", daemon=True)
        self._troubles: dict[str, str] = {}

    def start(self) -> None:
        """The first round is at once: jobs may have waited for this process."""
        self._thread.start()

    def stop(self) -> None:
        """Returns when the present round is over."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._attempt("reaping expired leases", reap)
            self._attempt("dispatching queued jobs", dispatch)
            self._stop.wait(self._backend.settings.caretaker_seconds)

    def _attempt(self, what: str, duty: Callable[[Backend], int]) -> None:
        """One duty; an outage is told once, and its end."""
        try:
            duty(self._backend)
        except Exception as error:  # noqa: BLE001  (whatever fails now must be tried again, or jobs hang for ever)
            kind = type(error).__name__
            if self._troubles.get(what) != kind:
                self._troubles[what] = kind
                log.warning("%s fails, and is tried again: %s: %s", what, kind, error)
        else:
            if self._troubles.pop(what, None) is not None:
                log.warning("%s works again", what)


@contextmanager
def caretaking(backend: Backend) -> Iterator[None]:
    """With a caretaker at work while the block runs."""
    caretaker = Caretaker(backend)
    caretaker.start()
    try:
        yield
    finally:
        caretaker.stop()
