"""What could grow in a service that is never restarted, read every few seconds."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import psycopg
import redis

from tests.chaos.installation import Installation
from tests.chaos.kept import Kept

EVERY_SECONDS = 5.0
MIB = 1 << 20
_AWAY = (psycopg.OperationalError, redis.ConnectionError, redis.TimeoutError, FileNotFoundError)
"""A server is being restarted, or a child has ended while it was looked at."""


class Samples:
    """Series of numbers, by what they are of."""

    def __init__(self, world: Installation, processes: Mapping[str, Kept]) -> None:
        """`processes`: those that are never killed."""
        self.series: dict[str, list[float]] = {}
        self._world, self._processes = world, processes
        self._done = threading.Event()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """While the block runs."""
        thread = threading.Thread(target=self._run, name="samples")
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def thirds(self) -> dict[str, tuple[float, float]]:
        """Medians of the first and of the last third of each series."""
        return {
            name: (median(values[: len(values) // 3 + 1]), median(values[-(len(values) // 3 + 1) :]))
            for name, values in self.series.items()
        }

    def _run(self) -> None:
        while not self._done.wait(EVERY_SECONDS):
            try:
                for name, process in self._processes.items():
                    self._add(_of_process(name, process.pid))
                self._add(self._of_servers())
            except _AWAY:
                continue

    def _add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.series.setdefault(name, []).append(value)

    def _of_servers(self) -> dict[str, float]:
        with psycopg.connect(self._world.postgres.url, connect_timeout=2) as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'muka'"
            row = connection.execute(query).fetchone() or (0,)
        with redis.Redis.from_url(self._world.redis.url, socket_timeout=2) as broker:
            told = broker.info()
            keys = broker.dbsize()
        return {
            "Postgres: connections": row[0],
            "Redis: connections": told["connected_clients"],
            "Redis: keys": keys,
            "Redis: MiB": told["used_memory"] / MIB,
        }


def _of_process(name: str, pid: int) -> dict[str, float]:
    """By Linux' /proc, of it and its children together; an attempt is a grandchild."""
    pids = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]
    texts = [Path(f"/proc/{each}/status").read_text() for each in pids]
    told = [dict(line.split(":", 1) for line in text.splitlines()) for text in texts]
    return {
        f"{name}: MiB": sum(int(status["VmRSS"].split()[0]) for status in told) / 1024,
        f"{name}: threads": sum(int(status["Threads"]) for status in told),
        f"{name}: file handles": sum(len(list(Path(f"/proc/{each}/fd").iterdir())) for each in pids),
    }
