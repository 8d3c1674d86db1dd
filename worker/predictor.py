"""`python -m worker.predictor`: the prediction worker. It keeps students warm, and claims no jobs."""

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from redis.exceptions import RedisError

from app.domain.prediction import Question
from app.prediction_queue import PredictionInbox, Taken
from app.processes import die_with_parent
from app.settings import Settings, get_settings
from app.storage import configured_store
from worker.child import thread_environment
from worker.warm_students import WarmStudents

log = logging.getLogger("predictor")

LOOK_UP_SECONDS = 1.0
"""How often a waiting worker looks whether it shall stop, and shows that it is alive."""


class _TooLateError(Exception):
    """Nobody waits for the answer any more."""


class Predictor:
    """Takes questions one by one, as long as it is not asked to stop and not idle for too long."""

    def __init__(self, settings: Settings, inbox: PredictionInbox, idle_seconds: float | None) -> None:
        from worker.predicting import load_student  # noqa: PLC0415  (torch: after its threads are counted)

        self._inbox = inbox
        self._idle_seconds = idle_seconds
        self._alive_file: Path | None = settings.worker_alive_file
        self._students = WarmStudents(
            partial(load_student, configured_store(settings)),
            max_models=settings.prediction_models,
            max_bytes=settings.prediction_model_bytes,
        )
        self.stopping = threading.Event()

    def run(self) -> None:
        """Until the end."""
        last_asked = time.monotonic()
        while not self.stopping.is_set():
            try:
                taken = self._inbox.take(LOOK_UP_SECONDS)
                self._show_alive()
                if taken is not None:
                    self._serve(taken)
                    last_asked = time.monotonic()
            except RedisError as error:
                log.warning("the broker does not answer: %s", error)
                self.stopping.wait(LOOK_UP_SECONDS)
            if self._idle_seconds is not None and time.monotonic() - last_asked > self._idle_seconds:
                return

    def close(self) -> None:
        """Show no more signs of life."""
        if self._alive_file is not None:
            self._alive_file.unlink(missing_ok=True)

    def _serve(self, taken: Taken) -> None:
        """Answer, or say why not; one bad question does not end the worker."""
        from worker.muka import MukaLibraryError  # noqa: PLC0415  (as above)
        from worker.predicting import predict  # noqa: PLC0415

        try:
            question = Question.model_validate_json(taken.question)
            answer = predict(self._students.get(question), question, partial(self._go_on, taken))
        except _TooLateError:
            log.warning("a request was not answered in time, and is given up")
        except MukaLibraryError as error:
            log.warning("a student cannot be asked: %s", error)
            self._inbox.fail(taken, f"the student cannot be asked: {error}")
        except Exception:
            log.exception("a request cannot be answered")
            self._inbox.fail(taken, "the student cannot be asked; the prediction worker's log says why")
        else:
            self._inbox.answer(taken, answer)

    def _go_on(self, taken: Taken, _texts: int) -> None:
        self._show_alive()
        if taken.seconds_left <= 0:
            raise _TooLateError

    def _show_alive(self) -> None:
        if self._alive_file is not None:
            self._alive_file.touch()


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM or Ctrl-C, which let the present question be answered."""
    parser = argparse.ArgumentParser(prog="python -m worker.predictor", description=__doc__)
    parser.add_argument("--idle-seconds", type=float, help="end after this long without a question")
    idle_seconds: float | None = parser.parse_args(arguments).idle_seconds
    settings = get_settings()
    if settings.die_with_parent is not None:
        die_with_parent(settings.die_with_parent)
    if settings.broker_url is None:
        sys.exit("set MUKA_BROKER_URL to the service's Redis")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s predictor %(levelname)s %(message)s")
    os.environ |= thread_environment(settings)
    inbox = PredictionInbox(settings.broker_url)
    predictor = Predictor(settings, inbox, idle_seconds)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: predictor.stopping.set())
    log.info("ready")
    predictor.run()
    predictor.close()
    inbox.close()


if __name__ == "__main__":
    main(sys.argv[1:])
    logging.shutdown()
    # Taking torch's modules apart takes a second, and nothing is left to be tidied.
    os._exit(0)
