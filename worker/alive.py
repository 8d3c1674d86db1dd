"""Signs that a worker listens to its queue: a file for health checks, and when the broker last spoke."""

import time
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import bootsteps

from app.settings import get_settings

TOUCH_SECONDS = 5.0


class Hearing:
    """When the broker last answered this worker, on `time.monotonic()`."""

    at: float = time.monotonic()


class Alive(bootsteps.StartStopStep):  # type: ignore[misc]
    """A part of Celery's consumer: started with every connection to the broker, stopped when that is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._file = get_settings().worker_alive_file

    def start(self, consumer: Any) -> None:
        """Show signs of life from now on."""
        handlers = consumer.task_consumer.channel.handlers
        handlers["BRPOP"] = _heard(handlers["BRPOP"])
        if self._file is not None:
            self._file.touch()
            self._timer = consumer.timer.call_repeatedly(TOUCH_SECONDS, self._file.touch)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002  (Celery's signature)
        """Show none until the next start."""
        if self._file is not None:
            self._timer.cancel()
            self._file.unlink(missing_ok=True)


def _heard(read: Callable[[], Any]) -> Callable[[], Any]:
    """The reader of what the queue answers: a message, or every second that there is none.

    No other answer counts: a worker that does not ask its queue any more is of no use, even if it could.
    """

    def reading() -> Any:
        try:
            message = read()
        except Empty:
            Hearing.at = time.monotonic()
            raise
        Hearing.at = time.monotonic()
        return message

    return reading
