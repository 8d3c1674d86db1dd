"""Tells the workers of jobs as soon as they are committed, off the way of the requests that created them."""

import logging
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from app.persistence import amalgamations
from app.persistence.database import Database
from app.task_queue import TaskQueue

_log = logging.getLogger(__name__)

MOST_AT_ONCE = 100
"""Messages after which the database is told that they were sent."""


class Sender:
    """One thread for all requests of a process: what comes while it is busy is sent and noted together.

    A job that is given to it is committed, so the request has succeeded whatever happens here: what could
    not be sent, or dies with this process, is left to the dispatcher.
    """

    def __init__(self, database: Database, queue: TaskQueue) -> None:
        self._database, self._queue = database, queue
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sender")
        self._lock = threading.Lock()
        self._waiting: deque[str] = deque()
        self._is_busy = False

    def send(self, job_id: str) -> None:
        """Returns at once; the message is on its way within milliseconds."""
        with self._lock:
            self._waiting.append(job_id)
            if self._is_busy:
                return
            self._is_busy = True
        try:
            self._thread.submit(self._run)
        except RuntimeError:  # the process stops
            _log.warning("%s: left to the dispatcher", job_id)

    def close(self) -> None:
        """Returns when everything is sent, or left to the dispatcher."""
        self._thread.shutdown()

    def _run(self) -> None:
        while job_ids := self._next():
            try:
                self._send_all(job_ids)
            except Exception as error:  # noqa: BLE001  (whatever it is, the next ones must be sent)
                _log.warning("%s: left to the dispatcher: %s", ", ".join(job_ids), error)

    def _next(self) -> Sequence[str]:
        with self._lock:
            count = min(len(self._waiting), MOST_AT_ONCE)
            self._is_busy = count > 0
            return [self._waiting.popleft() for _ in range(count)]

    def _send_all(self, job_ids: Sequence[str]) -> None:
        sent: list[str] = []
        try:
            for job_id in job_ids:
                self._queue.enqueue(job_id)
                sent.append(job_id)
        finally:
            if sent:
                with self._database.write() as session:
                    amalgamations.mark_dispatched(session, sent)
