"""The API dies between its commit and its message; and two of them look after the same jobs."""

import os
import signal
import threading
from contextlib import suppress

import httpx
from sqlalchemy import select

from app.domain.status import Stage, Status
from app.persistence.tables import Amalgamation
from tests.chaos.checks import check_world
from tests.chaos.gate import held_in
from tests.chaos.installation import Installation
from tests.jobs import job_of, messages_of
from tests.servers import wait_until


def test_a_job_whose_api_was_killed_between_commit_and_message_runs(world: Installation) -> None:
    body = world.recipe() | {"name": "never sent"}

    def post() -> None:
        with suppress(httpx.TransportError):
            httpx.post(f"{world.url}/amalgamations", json=body, timeout=60)

    os.kill(world.redis.process.pid, signal.SIGSTOP)  # it takes connections, and reads nothing
    sender = threading.Thread(target=post)
    sender.start()
    try:
        job_id = wait_until(lambda: _named(world, "never sent"), "the row is there")
        world.api.kill()
        assert job_of(world.database, job_id).dispatched_at is None
    finally:
        world.redis.kill()  # and with it what lies unread in its sockets
        sender.join()
        world.redis.start()
    assert world.ended(job_id).failure is None
    assert job_of(world.database, job_id).attempt == 1
    check_world(world, {job_id: Status.SUCCEEDED})


def test_two_dispatchers_and_two_reapers_do_everything_once(world: Installation) -> None:
    other = world.another_api("api-2")
    other.start()
    try:
        wait_until(lambda: "ready at" in other.output(), "the second API is ready")
        lost = world.submit()
        with held_in(world.database, lost, Stage.TRAINING):
            world.holder(lost).kill()
        world.redis.stop()
        unsent = [world.submit(), world.submit()]
        assert [job_of(world.database, job_id).dispatched_at for job_id in unsent] == [None, None]
        world.redis.start()
        for job_id in (lost, *unsent):
            world.ended(job_id)
    finally:
        other.stop()
    assert [job_of(world.database, job_id).attempt for job_id in (lost, *unsent)] == [2, 1, 1]
    assert sum("was lost" in message for message in messages_of(world.database, lost)) == 1
    check_world(world, dict.fromkeys((lost, *unsent), Status.SUCCEEDED))


def _named(world: Installation, name: str) -> str | None:
    with world.database.read() as session:
        return session.scalar(select(Amalgamation.id).where(Amalgamation.name == name))
