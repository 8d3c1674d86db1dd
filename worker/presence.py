"""The worker's row, and its end when it is of no use: idle, and without a word from the broker."""

import logging
import os
import platform
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix, new_id
from app.persistence import workers
from app.persistence.database import Database
from app.settings import Settings
from worker.alive import Hearing
from worker.versions import version_of

log = logging.getLogger(__name__)
T = TypeVar("T")

_FROZEN_SECONDS = 5.0
"""A beat that comes so late was late because the whole process did not run."""


class Presence:
    """A thread of the worker's main process that shows it in the database and listens to its silence.

    A worker that does not hear its broker, because that is frozen, unreachable, or a connection died without
    a word, takes no job, and whatever keeps it from listening is best cured by a new process. One that holds
    a lease is left alone: its job needs no broker. Where the database cannot tell, it is left alone as well,
    and so is one that was itself frozen for a while (a laptop that slept): it has to listen first.
    """

    def __init__(self, settings: Settings, name: str, *, leave: Callable[[int], object] = os._exit) -> None:
        """
        Args:
            settings: how often, and how long.
            name: under which it holds leases.
            leave: how the process ends; not by an exception, for its main thread may hang.
        """  # noqa: D205, D212  (a class is documented at the class)
        self._id = new_id(Prefix.WORKER)
        self._name = name
        self._url = settings.resolved_database_url()
        self._silence_seconds = settings.worker_silence_seconds
        self._every_seconds = min(settings.heartbeat_seconds, settings.worker_silence_seconds / 4)
        self._leave = leave
        self._listening_since = self._beaten = time.monotonic()
        self._is_told = False
        self._done = threading.Event()
        self._at_work = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    def start(self) -> None:
        """Be there from now on. No process is forked while the thread holds its lock."""
        lock = self._at_work
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)
        self._thread.start()

    def stop(self) -> None:
        """A clean end: no row is left. Waits no longer than for a beat."""
        self._done.set()
        self._thread.join(self._every_seconds)
        self._forget()

    def _run(self) -> None:
        while True:
            is_busy = self._show()
            now = time.monotonic()
            if is_busy is not False or now - self._beaten > self._every_seconds + _FROZEN_SECONDS:
                self._listening_since = now
            self._beaten = now
            silent = now - max(self._listening_since, Hearing.at)
            if silent > self._silence_seconds:
                log.error("idle, and no word from the broker for %.0f s: this worker ends", silent)
                self._forget()
                self._leave(1)
            if self._done.wait(self._every_seconds):
                return

    def _show(self) -> bool | None:
        """Whether it holds a lease; None: the database does not answer."""
        facts = {"host": platform.node(), "pid": os.getpid(), "version": version_of("muka")}

        def change(session: Session) -> bool:
            workers.show(session, self._id, name=self._name, **facts)  # type: ignore[arg-type]
            return workers.is_busy(session, self._name)

        return self._write(change)

    def _forget(self) -> None:
        self._write(lambda session: workers.remove(session, self._id))

    def _write(self, change: Callable[[Session], T]) -> T | None:
        """All of it with the lock, imports and connecting too: who is forked would find them half done.

        No connection is kept: pool processes would inherit it.
        """
        with self._at_work:
            database = Database(self._url)
            try:
                with database.write() as session:
                    answer = change(session)
            except (OperationalError, InterfaceError) as error:
                if not self._is_told:
                    log.warning("the worker's row cannot be written, trying again: %s", type(error).__name__)
                self._is_told = True
                return None
            finally:
                database.close()
        self._is_told = False
        return answer
