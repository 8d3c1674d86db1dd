"""SIGSTOP past the lease, then SIGCONT: what wakes up too late writes nothing."""

import re
from contextlib import ExitStack
from typing import Any

import pytest
from sqlalchemy import inspect

from app.domain.status import Stage, Status
from app.persistence.tables import Amalgamation
from tests.chaos.checks import check_world
from tests.chaos.gate import held_in
from tests.chaos.installation import Installation
from tests.jobs import job_of, messages_of, student_of
from tests.servers import wait_until


@pytest.mark.parametrize("stage", [Stage.TRAINING, Stage.PUBLISHING])
def test_a_worker_that_was_frozen_past_its_lease_writes_nothing(world: Installation, stage: Stage) -> None:
    """The one that publishes stands still within its transaction, with the job's row locked."""
    job_id = world.submit()
    with ExitStack() as asleep:
        with held_in(world.database, job_id, stage):
            holder = world.holder(job_id)
            asleep.enter_context(holder.frozen())
        job = world.ended(job_id)
        log, student = messages_of(world.database, job_id), student_of(world.database, job_id)
    assert (job.status, job.attempt, job.losses) == (Status.SUCCEEDED, 2, 1)
    # 3: it saw that it is stale; 1: that it had stood still for too long.
    stale = rf"attempt 1 of {job_id} ended with [13]"
    wait_until(lambda: re.search(stale, holder.output()), "it ends")
    assert messages_of(world.database, job_id) == log
    assert _columns(job_of(world.database, job_id)) == _columns(job)
    assert student_of(world.database, job_id).storage_prefix == student.storage_prefix
    assert student.storage_prefix.endswith("/attempt-2")
    check_world(world, {job_id: Status.SUCCEEDED})


def _columns(job: Amalgamation) -> dict[str, Any]:
    return {column.key: getattr(job, column.key) for column in inspect(Amalgamation).columns}
