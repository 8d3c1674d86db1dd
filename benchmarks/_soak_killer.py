"""Somebody who breaks a running installation every few seconds, by dice that can be thrown again."""

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

import redis

from tests.chaos.installation import LEASE_SECONDS, Installation
from tests.chaos.kept import Kept

AWAY_SECONDS = 2.0
"""How long a server that is restarted is away, and a process that is frozen for a moment."""


class Killer:
    """Everything happens to everybody, but nobody kills the main process of the first worker.

    That one lives from start to end, and so would show what grows.
    """

    def __init__(self, world: Installation, seed: int, every_seconds: float) -> None:
        self.done: Counter[str] = Counter()
        self._world = world
        self._dice = random.Random(seed)
        self._every_seconds = every_seconds
        self._deeds: dict[str, tuple[int, Callable[[], object]]] = {
            "kill -9 of a worker's child": (6, self._kill_child),
            "kill -9 of a worker": (3, self._kill_worker),
            "a worker frozen past its leases": (1, lambda: self._freeze(LEASE_SECONDS + AWAY_SECONDS)),
            "a worker frozen for a moment": (2, lambda: self._freeze(AWAY_SECONDS)),
            "FLUSHALL": (2, self._flush),
            "restart of Redis": (1, self._restart_redis),
            "restart of Postgres": (1, self._restart_postgres),
            "kill -9 of the API": (2, self._world.api.kill),
        }

    def act(self) -> None:
        """Wait for a while, and do something."""
        time.sleep(self._dice.uniform(0.5, 1.5) * self._every_seconds)
        weights = [weight for weight, _ in self._deeds.values()]
        (name,) = self._dice.choices(list(self._deeds), weights)
        with suppress(ProcessLookupError):  # it has ended by itself just now
            self._deeds[name][1]()
            self.done[name] += 1

    def _worker(self) -> Kept:
        return self._dice.choice(self._world.workers)

    def _kill_child(self) -> None:
        attempt = self._worker().attempt
        if attempt is None:
            raise ProcessLookupError
        os.kill(attempt, signal.SIGKILL)

    def _kill_worker(self) -> None:
        self._dice.choice(self._world.workers[1:]).kill()

    def _freeze(self, seconds: float) -> None:
        """Others go on meanwhile, and so does the killer."""
        worker = self._worker()

        def stand_still() -> None:
            with worker.frozen():
                time.sleep(seconds)

        threading.Thread(target=stand_still).start()

    def _flush(self) -> None:
        with redis.Redis.from_url(self._world.redis.url) as broker:
            broker.flushall()

    def _restart_redis(self) -> None:
        self._world.redis.stop()
        time.sleep(AWAY_SECONDS)
        self._world.redis.start()

    def _restart_postgres(self) -> None:
        self._world.postgres.stop()
        time.sleep(AWAY_SECONDS)
        self._world.postgres.start()
