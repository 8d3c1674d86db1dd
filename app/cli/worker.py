"""`muka worker`."""

import importlib.util
import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from app.cli.messages import give_up, usable_settings
from app.cli.schema import refuse_other_schema, require_store
from app.cli.store import require_bucket

CELERY = [
    # Root, as in many containers, is dangerous with pickled messages; ours are JSON.
    *("-W", "ignore:You're running the worker with superuser privileges"),
    *("-m", "celery", "--quiet", "--app", "worker.celery_app", "worker"),
    *("--pool", "prefork", "--concurrency", "1", "--hostname", "muka@%h", "--loglevel", "INFO"),
    # What nobody reads is not sent.
    *("--without-gossip", "--without-mingle"),
]
PREDICTOR = ["-m", "worker.predictor"]


class Queue(StrEnum):
    """What a worker works on."""

    AMALGAMATIONS = "amalgamations"
    PREDICTIONS = "predictions"


def worker(
    queue: Annotated[
        Queue, typer.Option(help="Jobs, or the texts of POST /students/{id}/predictions.")
    ] = Queue.AMALGAMATIONS,
) -> None:
    """Work, one thing at a time, until SIGTERM; the database, broker and store are those of the settings."""
    settings = usable_settings()
    if importlib.util.find_spec("torch") is None:
        give_up("the worker needs torch: pip install 'muka[worker]'")
    if settings.broker_url is None:
        give_up(
            "set MUKA_BROKER_URL to the service's Redis (`muka serve` alone brings its own workers along)"
        )
    require_bucket(settings)
    if queue == Queue.AMALGAMATIONS:  # predictions need no database
        refuse_other_schema(settings)
        require_store(settings)
    command = CELERY if queue == Queue.AMALGAMATIONS else PREDICTOR
    os.execv(sys.executable, [sys.executable, *command])  # noqa: S606  (there is nothing for a shell to do)
