"""Postgres is restarted, and crashes, with jobs running and queued."""

import os
import signal
import time
from collections.abc import Callable

import psycopg
import pytest

from app.domain.status import Status
from tests.chaos.checks import check_world
from tests.chaos.installation import Installation
from tests.servers import wait_until

AWAY_SECONDS = 3


def _is_restarted(world: Installation) -> None:
    world.postgres.stop()
    time.sleep(AWAY_SECONDS)
    world.postgres.start()


def _crashes(world: Installation) -> None:
    """One of its processes is killed: then it ends all of them, and recovers."""
    victim, witness = (psycopg.connect(world.postgres.url, autocommit=True) for _ in range(2))
    os.kill(victim.info.backend_pid, signal.SIGKILL)
    with pytest.raises(psycopg.OperationalError):
        witness.execute("SELECT pg_sleep(60)")
    victim.close()
    witness.close()
    wait_until(world.postgres.answers, "Postgres has recovered")


@pytest.mark.parametrize("outage", [_is_restarted, _crashes])
def test_running_jobs_wait_it_out_and_queued_ones_are_taken(
    world: Installation, outage: Callable[[Installation], None]
) -> None:
    running = [world.submit(), world.submit()]
    for job_id in running:
        world.tells(job_id, "checkpoint")
    queued = world.submit()
    outage(world)
    for job_id in [*running, queued]:
        assert world.ended(job_id).failure is None
    check_world(world, dict.fromkeys([*running, queued], Status.SUCCEEDED))
