"""Listeners of one process: what they cost the database, what they miss, what they leave behind."""

import asyncio
import threading
from contextlib import aclosing
from typing import Any

import pytest
from sqlalchemy import insert

from app.domain.status import Status
from app.persistence import amalgamations
from app.persistence.tables import Amalgamation, Event
from app.services import jobs
from app.services.backend import Backend
from app.services.job_feed import KEPT_EVENTS
from app.services.live import LiveJobs
from tests.jobs import OWNER, add_job, noted_statements

on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def _hear(live: LiveJobs, job_id: str, after: int = 0) -> list[int]:
    return [event.sequence async for event in live.events(job_id, after, 60) if event]


def _tell(backend: Backend, job_id: str, count: int) -> None:
    """Many events at once."""
    with backend.database.write() as session:
        job = session.get_one(Amalgamation, job_id)
        rows = [
            {
                "amalgamation_id": job_id,
                "sequence": job.events + 1 + n,
                "type": "metric",
                "message": "",
                "data": {},
            }
            for n in range(count)
        ]
        session.execute(insert(Event), rows)
        job.events += count


def _cancel(backend: Backend, job_id: str) -> None:
    with backend.database.write() as session:
        sources = (Status.QUEUED,)
        assert amalgamations.change_status(session, job_id, Status.CANCELLED, "over", only_from=sources)


def test_all_listeners_hear_everything_and_the_stream_ends_with_the_job(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> list[list[int]]:
        live = LiveJobs(backend)
        listeners = [asyncio.create_task(_hear(live, job_id, after)) for after in (0, 0, 1, 3)]
        await asyncio.sleep(0.2)
        await asyncio.to_thread(_tell, backend, job_id, 3)
        await asyncio.sleep(0.7)
        await asyncio.to_thread(_cancel, backend, job_id)
        heard = await asyncio.wait_for(asyncio.gather(*listeners), 10)
        assert live.feeds == 0
        await live.close()
        return heard

    assert asyncio.run(main()) == [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [2, 3, 4, 5], [4, 5]]


@on_sqlite
def test_a_hundred_listeners_and_long_polls_cost_the_database_what_one_costs(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def load(listeners: int) -> int:
        live = LiveJobs(backend)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(_hear(live, job_id)) for _ in range(listeners)
        ] + [
            asyncio.create_task(live.wait(OWNER, job_id, lambda job: job.has_ended, 60))
            for _ in range(listeners)
        ]
        await asyncio.sleep(1)
        threads = threading.active_count()
        with noted_statements(backend.database) as statements:
            await asyncio.sleep(2.2)
        assert threading.active_count() <= threads < 60
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert live.feeds == 0
        await live.close()
        return len(statements)

    one, hundred = asyncio.run(load(1)), asyncio.run(load(100))
    assert 0 < hundred <= one + 3  # one look more, at most


@on_sqlite
def test_who_begins_far_behind_gets_every_event(backend: Backend) -> None:
    job_id = add_job(backend.database)
    _tell(backend, job_id, 3 * KEPT_EVENTS)
    _cancel(backend, job_id)
    last = 3 * KEPT_EVENTS + 2
    assert asyncio.run(_hear(LiveJobs(backend), job_id)) == list(range(1, last + 1))


@on_sqlite
def test_a_slow_listener_loses_nothing_to_the_bound_of_memory(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> list[int]:
        live, heard = LiveJobs(backend), []
        async with aclosing(live.events(job_id, 0, 60)) as events:
            async for event in events:
                assert event
                heard.append(event.sequence)
                if event.sequence == 1:  # and while it is busy with that, four times what is kept comes
                    quick = asyncio.create_task(_hear(live, job_id))
                    for _ in range(4):
                        await asyncio.to_thread(_tell, backend, job_id, KEPT_EVENTS)
                        await asyncio.sleep(0.7)
                    await asyncio.to_thread(_cancel, backend, job_id)
                    assert await asyncio.wait_for(quick, 10) == list(range(1, 4 * KEPT_EVENTS + 3))
        return heard

    assert asyncio.run(main()) == list(range(1, 4 * KEPT_EVENTS + 3))


@on_sqlite
def test_silence_is_told(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> list[int | None]:
        async with aclosing(LiveJobs(backend).events(job_id, 0, 0.1)) as events:
            heard = [await anext(events) for _ in range(4)]
        return [event and event.sequence for event in heard]

    assert asyncio.run(main()) == [1, None, None, None]


@on_sqlite
def test_a_process_that_stops_lets_everybody_go_at_once(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> None:
        live = LiveJobs(backend)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(_hear(live, job_id)),
            asyncio.create_task(live.wait(OWNER, job_id, lambda job: job.has_ended, 60)),
        ]
        await asyncio.sleep(0.3)
        live.end()
        heard, job = await asyncio.wait_for(asyncio.gather(*tasks), 2)
        assert (heard, job.row.status) == ([1], Status.QUEUED)
        assert await asyncio.wait_for(_hear(live, job_id), 2) == [], "nor does anybody new have to wait"
        await live.close()

    asyncio.run(main())


@on_sqlite
def test_a_job_that_is_deleted_ends_its_feed(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> list[int]:
        live = LiveJobs(backend)
        listener = asyncio.create_task(_hear(live, job_id))
        await asyncio.sleep(0.3)
        with backend.database.write() as session:
            only_from = (Status.QUEUED,)
            amalgamations.change_status(session, job_id, Status.CANCELLED, "over", only_from=only_from)
            amalgamations.remove(session, job_id)
        return await asyncio.wait_for(listener, 5)

    assert asyncio.run(main()) == [1]


@on_sqlite
def test_a_look_reads_no_events_when_there_are_none(backend: Backend) -> None:
    job_id = add_job(backend.database)
    with noted_statements(backend.database) as statements:
        job, fresh = jobs.look(backend, job_id, 1, KEPT_EVENTS)
    assert (job.row.id, list(fresh)) == (job_id, [])
    assert not any("FROM events" in statement for statement in statements)
