"""Broker and workers of the embedded mode, as long as the block runs."""

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from app.embedded.broker import embedded_broker
from app.embedded.kept_process import KeptProcess
from app.embedded.predictor import predictor_on_demand
from app.persistence import amalgamations, shards, workers
from app.persistence.database import Database
from app.settings import Settings


@contextmanager
def embedded_engine(settings: Settings, *, with_worker: bool = True) -> Iterator[Settings]:
    """A broker, a supervised worker on it, and a prediction worker when it is asked for: their settings.

    The caller holds the data folder (`app.embedded.data_lock`) and has migrated the database.
    """
    with embedded_broker(settings.data_dir / "broker") as url:
        named = settings.model_copy(update={"broker_url": url})
        if not with_worker:
            yield named
            return
        environment = _environment(named, f"{platform.node()}:predictions")
        with supervised_worker(named), predictor_on_demand(named, url, environment):
            yield named


@contextmanager
def supervised_worker(settings: Settings) -> Iterator[None]:
    """One `muka worker`, started again when it dies; what it held is queued again at once."""
    name = f"{platform.node()}:embedded"
    database = Database(settings.resolved_database_url())

    def forget_it() -> None:
        with database.write() as session:
            amalgamations.end_leases_of(session, name)
            shards.lose(session, name)
            workers.remove_named(session, name)

    worker = KeptProcess(
        "worker",
        [sys.executable, "-m", "app.cli", "worker"],
        environment=_environment(settings, name),
        stop_seconds=settings.stop_seconds,
        before_restart=forget_it,
    )
    forget_it()  # of one that was killed together with its service: we hold the folder, so it is gone
    worker.start()
    try:
        yield
    finally:
        worker.stop()
        database.close()


def _environment(settings: Settings, name: str) -> dict[str, str]:
    own = {
        "MUKA_BROKER_URL": settings.broker_url or "",
        "MUKA_DATA_DIR": str(settings.data_dir.resolve()),
        "MUKA_DATABASE_URL": settings.resolved_database_url(),
        "MUKA_WORKER_NAME": name,
        "MUKA_DIE_WITH_PARENT": str(os.getpid()),
    }
    if settings.store_url is None:
        own["MUKA_STORE_DIR"] = str(settings.resolved_store_dir())
    return dict(os.environ) | own
