"""A file that a worker touches while it listens to its queue and its main loop turns.

Health checks look at its age.
"""

from typing import Any

from celery import bootsteps

from app.settings import get_settings

TOUCH_SECONDS = 5.0


class Alive(bootsteps.StartStopStep):  # type: ignore[misc]
    """A part of Celery's consumer: started with every connection to the broker, stopped when that is lost."""

    requires = ("celery.worker.consumer.tasks:Tasks",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._file = get_settings().worker_alive_file

    def start(self, consumer: Any) -> None:
        """Show signs of life from now on."""
        if self._file is not None:
            self._file.touch()
            self._timer = consumer.timer.call_repeatedly(TOUCH_SECONDS, self._file.touch)

    def stop(self, consumer: Any) -> None:  # noqa: ARG002  (Celery's signature)
        """Show none until the next start."""
        if self._file is not None:
            self._timer.cancel()
            self._file.unlink(missing_ok=True)
