"""The lease: what lets one process write one job's row, and tells it when to stop."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.domain.recipe import RecipeNotKnownError, read_stored
from app.domain.status import Status
from app.persistence import amalgamations, waiting
from app.persistence.database import Database
from app.persistence.losses import NO_LEASE, settle_loss
from app.persistence.tables import Amalgamation
from app.persistence.time import now

log = logging.getLogger(__name__)
T = TypeVar("T")

_LOOK_EVERY_SECONDS = 1.0
"""How soon a cancel is seen, at the latest."""


class StopReason(StrEnum):
    """Why a run is to stop before its end. The first one counts."""

    CANCELLED = "cancelled"
    """The user's wish."""
    TIMEOUT = "timeout"
    """`max_runtime_seconds` are over."""
    WARM_STOP = "warm_stop"
    """The worker is to stop: write a checkpoint, another worker goes on."""
    LOST = "lost"
    """Another attempt has the job, or the lease could not be renewed: write nothing any more."""


class LeaseLostError(Exception):
    """This attempt does not hold the job any more: stop at once."""


def claim(database: Database, job_id: str, *, worker: str, lease_seconds: float) -> int | None:
    """Take a queued job; its attempt, or None when it is not to be had.

    A job whose recipe is of a newer muka is left in the queue, for a worker that knows it: while an
    installation is upgraded, workers of both versions run.
    """
    with database.write() as session:
        if strange := _not_known_here(session, job_id):
            if waiting.warn_once(session, job_id, strange):
                log.warning("%s: %s", job_id, strange)
            return None
        job = amalgamations.claim(session, job_id, worker=worker, lease_seconds=lease_seconds)
    return None if job is None else job.attempt


def _not_known_here(session: Session, job_id: str) -> str | None:
    """Why the recipe cannot be followed by this version of muka; None where it can."""
    job = amalgamations.find(session, job_id)
    if job is None:
        return None
    try:
        read_stored(job.recipe, job.resolved)
    except RecipeNotKnownError as error:
        return f"a worker left the job to newer ones: {error}; bring the workers to the version of the API"
    return None


def record_loss(
    database: Database, job_id: str, attempt: int, why: str, *, max_attempts: int
) -> Status | None:
    """The parent saw its attempt die: settle it now and do not wait for the lease to run out."""
    with database.write() as session:
        return settle_loss(session, job_id, attempt, why, max_attempts=max_attempts)


def record_loss_of(database: Database, job_id: str, *, worker: str, max_attempts: int) -> Status | None:
    """The same when only the worker's name is known; nothing happens when it does not hold the job."""
    with database.write() as session:
        found = amalgamations.status_of(session, job_id)
        if found is None:
            return None
        mine = Amalgamation.lease_owner == worker
        why = "the worker's process was ended"
        return settle_loss(session, job_id, found[1], why, max_attempts=max_attempts, where=mine)


def give_back(session: Session, job_id: str, attempt: int) -> Amalgamation | None:
    """The worker stops, which is no loss of the job; a cancel that came first is kept.

    Returns:
        The job; None when the attempt does not hold it any more.
    """
    message = f"attempt {attempt} stopped with its worker; the job is queued again"
    cancelled = "cancelled while its worker stopped"
    for to, told, values in (
        (Status.QUEUED, message, {**NO_LEASE, "stage": None}),
        (Status.CANCELLED, cancelled, {}),
    ):
        job = amalgamations.change_status(
            session, job_id, to, told, only_from=amalgamations.LEASED, attempt=attempt, values=values
        )
        if job is not None:
            return job
    return None


class Lease:
    """One attempt's hold on its job: every write goes through here and carries the attempt.

    A thread renews it, writes progress, and reads the cancel flag about every second. An outage of the
    database is waited out for as long as the lease would have lasted.
    """

    def __init__(
        self, database: Database, job_id: str, attempt: int, *, lease_seconds: float, heartbeat_seconds: float
    ) -> None:
        self.job_id = job_id
        self.attempt = attempt
        self.stop_reason: StopReason | None = None
        self.deadline: float | None = None
        """`time.monotonic()` at which the job has run too long."""
        self.fresh_columns: Callable[[], dict[str, Any]] = dict
        """Asked in the heartbeat's thread: columns that changed since it was asked last (progress)."""
        self.moved_at = time.monotonic()
        """When the attempt last showed progress, or told an event."""
        self._database = database
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._renewed = time.monotonic()
        self._done = threading.Event()
        self._first_reason = threading.RLock()  # a signal's handler may come in between

    # --- Stopping ---

    def should_stop(self) -> bool:
        """True once there is a reason; the library asks before every step and batch."""
        if time.monotonic() - self._renewed > self._lease_seconds:
            self.stop(StopReason.LOST)  # also when the heartbeat hangs in a database that hangs
        return self.stop_reason is not None

    def stop(self, reason: StopReason) -> None:
        """Ask the run to stop; only `LOST` overrules an earlier reason."""
        with self._first_reason:
            if self.stop_reason is None or reason == StopReason.LOST:
                self.stop_reason = reason

    # --- Reading and writing ---

    def read(self, query: Callable[[Session], T]) -> T:
        """What the database answers, for as long as the lease lasts. Raises `LeaseLostError` after that."""
        return self.patiently(partial(self._read_once, query))

    def write(self, change: Callable[[Session], T | None]) -> T:
        """Run a fenced change in one transaction.

        Raises:
            LeaseLostError: The change answered None or False: the attempt is stale; or the database did
                not answer for as long as the lease lasts.
        """
        answer = self.patiently(partial(self._write_once, change))
        if answer is None or answer is False:
            self.stop(StopReason.LOST)
            raise LeaseLostError(f"attempt {self.attempt} does not hold {self.job_id} any more")
        return answer

    def _read_once(self, query: Callable[[Session], T]) -> T:
        with self._database.read() as session:
            return query(session)

    def _write_once(self, change: Callable[[Session], T | None]) -> T | None:
        with self._database.write() as session:
            return change(session)

    def patiently(self, ask: Callable[[], T]) -> T:
        """What `ask` answers, asked again while the database does not answer.

        Raises:
            LeaseLostError: It has not for as long as the lease lasts.
        """
        while True:
            try:
                return ask()
            except (OperationalError, InterfaceError) as error:
                self._wait_out(error)

    def tell(
        self,
        kind: str,
        message: str,
        data: dict[str, Any] | None = None,
        *,
        also: Callable[[Session], object] = lambda _: None,
        **columns: Any,
    ) -> None:
        """Append an event, and set columns with it. Raises `LeaseLostError`.

        `also`: a further change in the same transaction, once it is sure that the attempt holds the job.
        """
        self.moved_at = time.monotonic()

        def change(session: Session) -> bool:
            if columns and self._set(session, columns) is None:
                return False
            told = amalgamations.tell(
                session, self.job_id, self.attempt, kind=kind, message=message, data=data
            )
            if told:
                also(session)
            return told

        self.write(change)

    def end(self, to: Status, message: str, **values: Any) -> None:
        """Give the job its next status, from `running` or `cancelling`. Raises `LeaseLostError`."""
        self.write(lambda session: self.change(session, to, message, **values))

    def change(self, session: Session, to: Status, message: str, **values: Any) -> Amalgamation | None:
        """The same within the caller's transaction; None when the attempt is stale."""
        return amalgamations.change_status(
            session,
            self.job_id,
            to,
            message,
            only_from=amalgamations.LEASED,
            attempt=self.attempt,
            values=values,
        )

    def _set(self, session: Session, columns: dict[str, Any]) -> Status | None:
        renewed = {"lease_until": now(self._lease_seconds), "heartbeat_at": now()}
        return amalgamations.write_fenced(session, self.job_id, self.attempt, {**renewed, **columns})

    def _wait_out(self, error: Exception) -> None:
        if time.monotonic() - self._renewed > self._lease_seconds:
            self.stop(StopReason.LOST)
            raise LeaseLostError(f"the database has not answered for {self._lease_seconds} s") from error
        log.warning("the database does not answer, trying again: %s", type(error).__name__)
        time.sleep(min(1.0, self._heartbeat_seconds))

    # --- The heartbeat ---

    @contextmanager
    def kept(self) -> Iterator[None]:
        """With the heartbeat's thread at work while the block runs."""
        thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join(self._heartbeat_seconds)  # a database that is silent must not keep the process

    def _beat(self) -> None:
        while not self._done.wait(min(_LOOK_EVERY_SECONDS, self._heartbeat_seconds)):
            try:
                self._look()
            except (OperationalError, InterfaceError) as error:
                log.warning("the lease could not be renewed, trying again: %s", type(error).__name__)
            except Exception:
                # A run without a heartbeat would lose its lease without a word.
                log.exception("the heartbeat stopped")
                self.stop(StopReason.LOST)
                raise
            if time.monotonic() - self._renewed > self._lease_seconds:
                self.stop(StopReason.LOST)

    def _look(self) -> None:
        """Renew when it is time or there is progress to write; else only read the status."""
        if self.deadline is not None and time.monotonic() > self.deadline:
            self.stop(StopReason.TIMEOUT)
        columns = self.fresh_columns()
        looked = time.monotonic()
        if columns:
            self.moved_at = looked
        if columns or looked - self._renewed >= self._heartbeat_seconds:
            with self._database.write() as session:
                status = self._set(session, columns)
            self._renewed = looked
        else:
            status = self._read_status()
        if status is None:
            self.stop(StopReason.LOST)
        elif status == Status.CANCELLING:
            self.stop(StopReason.CANCELLED)

    def _read_status(self) -> Status | None:
        with self._database.read() as session:
            found = amalgamations.status_of(session, self.job_id)
        if found is None or found[1] != self.attempt or found[0] not in amalgamations.LEASED:
            return None
        return found[0]
