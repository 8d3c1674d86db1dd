"""Looks after what nobody else looks after: leases that ran out, messages never sent, files left behind.

A job is claimed from `queued` only. One whose lease has run out goes back to the queue here first, so that
the loss is counted and told; two caretakers at once are harmless (compare-and-set, duplicate messages).
"""

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from app.persistence import amalgamations, shards
from app.persistence.losses import settle_loss
from app.services.backend import Backend
from app.services.idempotency import RENEW_SECONDS
from app.services.stored_outputs import evict
from app.services.sweeper import sweep
from app.services.telemetry import DISPATCHED, REAPED

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
    REAPED.inc(settled)
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
            amalgamations.mark_dispatched(session, [job_id])
        DISPATCHED.inc()
    return len(waiting)


def forget_shards(backend: Backend) -> None:
    """Remove what attempts that have ended wanted to share. Looks before it writes."""
    with backend.database.read() as session:
        is_stale = shards.has_stale(session)
    if is_stale:
        with backend.database.write() as session:
            shards.remove_stale(session)


Duty = Callable[[Backend], object]
DUTIES: Mapping[str, Duty] = {
    "reaping expired leases": reap,
    "dispatching queued jobs": dispatch,
    "forgetting stale shards": forget_shards,
}


def renew_claims(backend: Backend) -> None:
    """Show that this process still carries out the requests under an `Idempotency-Key` that take long."""
    backend.claims.renew(backend.database)


CLAIMS: Mapping[str, Duty] = {"renewing claims of requests in flight": renew_claims}
"""In a thread of its own: an outage of the broker must not cost a claim."""
EVICTION: Mapping[str, Duty] = {"removing stored outputs beyond the limit": evict}
"""In a thread of its own, like the sweep: thousands of files may go."""


class Caretaker:
    """A thread that does its duties every so often, through every outage."""

    def __init__(
        self, backend: Backend, duties: Mapping[str, Duty] = DUTIES, *, every_seconds: float | None = None
    ) -> None:
        self._backend = backend
        self._duties = duties
        self._every_seconds = every_seconds or backend.settings.caretaker_seconds
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
            for what, duty in self._duties.items():
                self._attempt(what, duty)
            self._stop.wait(self._every_seconds)

    def _attempt(self, what: str, duty: Duty) -> None:
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


class Sweeper(Caretaker):
    """The same for the sweep, in a thread of its own: a large one must not keep jobs waiting."""

    def __init__(self, backend: Backend) -> None:
        every = backend.settings.sweep_seconds
        super().__init__(backend, {"removing what is left over": self._sweep}, every_seconds=every)

    def _sweep(self, backend: Backend) -> None:
        for _ in sweep(backend):
            if self._stop.is_set():
                return


@contextmanager
def caretaking(backend: Backend) -> Iterator[None]:
    """With caretakers and a sweeper at work while the block runs."""
    claims = Caretaker(backend, CLAIMS, every_seconds=RENEW_SECONDS)
    threads = Caretaker(backend), claims, Caretaker(backend, EVICTION), Sweeper(backend)
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.stop()
