"""The prediction worker of the embedded mode: torch takes memory only while somebody asks."""

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from redis.exceptions import RedisError

from app.embedded.kept_process import KeptProcess
from app.prediction_queue import PredictionInbox
from app.settings import Settings

log = logging.getLogger(__name__)

_LOOK_UP_SECONDS = 1.0
_STOP_SECONDS = 5.0
"""For the present request; its caller is about to be cut off anyway."""


@contextmanager
def predictor_on_demand(
    settings: Settings, broker_url: str, environment: Mapping[str, str]
) -> Iterator[None]:
    """Start a prediction worker when a request waits; it ends by itself when nobody asks any more."""
    inbox = PredictionInbox(broker_url)

    def until_asked(stopping: threading.Event) -> None:
        while not stopping.is_set():
            try:
                if inbox.wait(_LOOK_UP_SECONDS, settings.prediction_timeout_seconds):
                    return
            except RedisError:
                log.warning("the prediction worker waits for the broker")
                stopping.wait(_LOOK_UP_SECONDS)

    idle = str(settings.prediction_idle_seconds)
    predictor = KeptProcess(
        "prediction worker",
        [sys.executable, "-m", "worker.predictor", "--idle-seconds", idle],
        environment=environment,
        stop_seconds=_STOP_SECONDS,
        until_needed=until_asked,
    )
    predictor.start()
    try:
        yield
    finally:
        predictor.stop()
        inbox.close()
