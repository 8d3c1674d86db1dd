"""Cancelled while it is queued, and in every stage."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from sqlalchemy import text

from app.client.errors import ConflictError
from app.domain.status import Stage, Status
from app.persistence.database import Database
from tests.chaos.checks import check_world
from tests.chaos.gate import held_in
from tests.chaos.installation import LEASE_SECONDS, Installation
from tests.jobs import job_of
from tests.servers import wait_until

LATE = (Stage.EVALUATING, Stage.PUBLISHING)
"""In which the student is trained: it is published if the cancel comes a moment too late."""


@pytest.mark.parametrize("stage", Stage)
def test_in_every_stage(world: Installation, stage: Stage) -> None:
    job_id = world.submit()
    with ThreadPoolExecutor(1) as threads:
        with held_in(world.database, job_id, stage):
            asked = threads.submit(world.client.amalgamations.cancel, job_id)
            # Who waits to leave its stage has the job's row, and a cancel that comes then waits for it.
            wait_until(lambda: asked.done() or _waits_for_a_row(world.database), "the cancel is there")
        with suppress(ConflictError):  # it has ended
            asked.result()
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


def _waits_for_a_row(database: Database) -> bool:
    query = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('transactionid', 'tuple')")
    with database.read() as session:
        return bool(session.scalar(query))
