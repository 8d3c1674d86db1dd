"""Redis is restarted, killed and emptied, with jobs running and queued; and messages come again and again."""

from collections.abc import Callable

import pytest
import redis

from app.domain.status import Stage, Status
from app.task_queue import QUEUE, TaskQueue
from tests.chaos.checks import check_world
from tests.chaos.installation import Installation
from tests.jobs import job_of
from tests.servers import Server, wait_until


def _two_running_and_one_queued(world: Installation) -> list[str]:
    running = [world.submit(), world.submit()]
    for job_id in running:
        world.tells(job_id, "stage", stage=Stage.SCORING)
    return [*running, world.submit()]


def _all_succeed_undisturbed(world: Installation, jobs: list[str]) -> None:
    for job_id in jobs:
        assert world.ended(job_id).failure is None
        job = job_of(world.database, job_id)
        assert (job.attempt, job.losses) == (1, 0)
    check_world(world, dict.fromkeys(jobs, Status.SUCCEEDED))


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
def test_redis_is_away_and_comes_back(world: Installation, end: Callable[[Server], None]) -> None:
    jobs = _two_running_and_one_queued(world)
    end(world.redis)
    jobs.append(world.submit())  # is accepted all the same
    world.redis.start()
    _all_succeed_undisturbed(world, jobs)


def test_redis_loses_everything(world: Installation) -> None:
    jobs = _two_running_and_one_queued(world)
    with redis.Redis.from_url(world.redis.url) as broker:
        assert broker.llen(QUEUE) > 0
        broker.flushall()
    _all_succeed_undisturbed(world, jobs)


def test_the_same_message_comes_five_times(world: Installation) -> None:
    queue = TaskQueue(world.redis.url)
    job_id = world.submit()
    for _ in range(5):
        queue.enqueue(job_id)
    world.ended(job_id)
    for _ in range(5):
        queue.enqueue(job_id)
    queue.close()
    with redis.Redis.from_url(world.redis.url) as broker:
        wait_until(lambda: not broker.exists(QUEUE), "the repeated messages are taken")
    _all_succeed_undisturbed(world, [job_id])
