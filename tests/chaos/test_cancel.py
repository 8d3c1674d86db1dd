"""Cancelled while it is queued, and in every stage."""

from contextlib import suppress

import pytest

from app.client.errors import ConflictError
from app.domain.status import Stage, Status
from tests.chaos.checks import check_world
from tests.chaos.installation import LEASE_SECONDS, Installation
from tests.jobs import job_of

LATE = (Stage.EVALUATING, Stage.PUBLISHING)
"""In which the student is trained: it is published if the cancel comes a moment too late."""


@pytest.mark.parametrize("stage", Stage)
def test_in_every_stage(world: Installation, stage: Stage) -> None:
    job_id = world.submit()
    world.tells(job_id, "stage", stage=stage)
    with suppress(ConflictError):  # it has ended
        world.client.amalgamations.cancel(job_id)
    status = world.ended(job_id, seconds=LEASE_SECONDS).status
    assert status == Status.CANCELLED or (status == Status.SUCCEEDED and stage in LATE)
    check_world(world, {job_id: Status(status)})


def test_while_it_is_queued(world: Installation) -> None:
    running = [world.submit() for _ in world.workers]
    for job_id in running:
        world.holder(job_id)
    queued = world.submit()
    world.client.amalgamations.cancel(queued)
    job = job_of(world.database, queued)
    assert (job.status, job.attempt) == (Status.CANCELLED, 0)
    for job_id in running:
        world.ended(job_id)
    check_world(world, {queued: Status.CANCELLED, **dict.fromkeys(running, Status.SUCCEEDED)})
