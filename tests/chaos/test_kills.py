"""`kill -9` in every stage: of the worker's child that runs the job, and of the whole worker."""

import os
import signal

import pytest

from app.domain.status import FailureCode, Stage, Status
from tests.chaos.checks import check_world
from tests.chaos.gate import held_in
from tests.chaos.installation import Installation
from tests.jobs import messages_of
from tests.servers import wait_until


@pytest.mark.parametrize("stage", Stage)
def test_the_child_is_killed(world: Installation, stage: Stage) -> None:
    job_id = world.submit()
    with held_in(world.database, job_id, stage):
        _kill_child(world, job_id)
    job = world.ended(job_id)
    assert (job.attempt, job.losses) == (2, 1)
    assert _losses(world, job_id) == ["its process was ended by SIGKILL"]  # nobody waited for the lease
    check_world(world, {job_id: Status.SUCCEEDED})


@pytest.mark.parametrize("stage", Stage)
def test_the_whole_worker_is_killed(world: Installation, stage: Stage) -> None:
    job_id = world.submit()
    with held_in(world.database, job_id, stage):
        world.holder(job_id).kill()
    job = world.ended(job_id)
    assert (job.attempt, job.losses) == (2, 1)
    assert _losses(world, job_id) == ["its worker fell silent"]
    check_world(world, {job_id: Status.SUCCEEDED})


def test_a_job_that_kills_its_worker_three_times_stays_failed_and_the_worker_is_well(
    world: Installation,
) -> None:
    poison, next_one = world.submit(), world.submit()
    starts = [worker.starts for worker in world.workers]
    for attempt in (1, 2, 3):
        world.tells(poison, "status", status=Status.RUNNING, attempt=attempt)
        _kill_child(world, poison)
    job = world.ended(poison)
    assert job.failure is not None
    assert job.failure["code"] == FailureCode.WORKER_LOST
    world.ended(next_one)
    assert [worker.starts for worker in world.workers] == starts
    check_world(world, {poison: Status.FAILED, next_one: Status.SUCCEEDED})


def _kill_child(world: Installation, job_id: str) -> None:
    worker = world.holder(job_id)
    os.kill(wait_until(lambda: worker.attempt, "the attempt has a process"), signal.SIGKILL)


def _losses(world: Installation, job_id: str) -> list[str]:
    told = [message for message in messages_of(world.database, job_id) if "was lost" in message]
    return [message.split(": ", 1)[1].split(",")[0].split(";")[0] for message in told]
