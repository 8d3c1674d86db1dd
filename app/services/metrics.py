"""`GET /metrics`: what this process has counted, and what the database tells about the whole service."""

import threading
import time
from collections.abc import Iterator

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from app.persistence.figures import Figures, figures
from app.services import stored_outputs
from app.services.backend import Backend
from app.services.live import LiveJobs
from app.services.stored_outputs import Statistics

MEDIA_TYPE = "text/plain; version=0.0.4"
KEPT_SECONDS = 5.0
"""The database is asked no more often, however many scrape."""


class Metrics:
    """The answer to a scrape. One a process."""

    def __init__(self, backend: Backend, live: LiveJobs) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Service(backend, live))

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(REGISTRY) + generate_latest(self._registry)


class _Service(Collector):
    """Gauges, made when they are asked for."""

    def __init__(self, backend: Backend, live: LiveJobs) -> None:
        self._backend = backend
        self._live = live
        self._lock = threading.Lock()
        self._known: tuple[Figures, Statistics] | None = None
        self._looked_at = 0.0

    def describe(self) -> list[Metric]:
        """Nothing in advance: to be registered is no reason to ask the database."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Without the database's part when it does not answer, which `muka_database_up` tells."""
        yield _gauge(
            "muka_event_listeners", "Event streams and long polls of this process.", self._live.listeners
        )
        known = self._look()
        yield _gauge("muka_database_up", "1: the database answers this process.", known is not None)
        if known is not None:
            yield from _of_jobs(known[0])
            yield from _of_outputs(known[1])

    def _look(self) -> tuple[Figures, Statistics] | None:
        with self._lock:
            if self._known is None or time.monotonic() - self._looked_at > KEPT_SECONDS:
                try:
                    with self._backend.database.read() as session:
                        found = figures(session, alive_seconds=self._backend.settings.lease_seconds)
                    self._known = found, stored_outputs.statistics(self._backend)
                except SQLAlchemyError:
                    self._known = None
                self._looked_at = time.monotonic()
            return self._known


def _of_jobs(found: Figures) -> Iterator[Metric]:
    yield _gauges("muka_jobs", "Jobs, by status.", "status", found.jobs)
    yield _gauges("muka_jobs_in_stage", "Jobs that a worker holds, by stage.", "stage", found.stages)
    yield _gauge("muka_queue_depth", "Jobs that wait for a worker.", found.jobs["queued"])
    running = found.jobs["running"] + found.jobs["cancelling"]
    yield _gauge("muka_attempts_running", "Attempts that a worker holds.", running)
    help_text = "Since the oldest queued job was created; 0 when none is queued."
    yield _gauge("muka_queue_oldest_seconds", help_text, found.oldest_queued_seconds)
    yield _counter("muka_attempts_lost", "Attempts whose worker died, of all processes.", found.lost_attempts)
    yield _gauges("muka_workers", "Workers that are alive, by what they do.", "state", found.workers)
    name, help_text = "muka_webhook_deliveries", "Webhook deliveries in the log, by status."
    yield _gauges(name, help_text, "status", found.deliveries)


def _of_outputs(found: Statistics) -> Iterator[Metric]:
    yield _gauge("muka_stored_outputs", "Pieces of teachers' outputs that are kept.", found.pieces)
    yield _gauge("muka_stored_outputs_bytes", "Their size.", found.size_bytes)
    yield _gauge(
        "muka_stored_outputs_limit_bytes", "From which size the longest unused go.", found.limit_bytes
    )
    name = "muka_scoring_shards"
    shards = CounterMetricFamily(
        name, "Shards of texts: teachers were asked, or not any more.", labels=["outputs"]
    )
    shards.add_metric(["reused"], found.shards_reused)
    shards.add_metric(["computed"], found.shards_computed)
    yield shards


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value)


def _gauges(name: str, help_text: str, label: str, values: dict[str, int]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
