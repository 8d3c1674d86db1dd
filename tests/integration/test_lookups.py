"""Many who ask for jobs at once: one question for all of them, and for each of them the right answer."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.exc import SQLAlchemyError

from app.domain.errors import NotFoundError
from app.domain.identifiers import Prefix, new_id
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from app.services.backend import Backend
from app.services.lookups import Lookups
from tests.jobs import OWNER, add_job, noted_statements


def test_fifty_at_once_share_two_questions(backend: Backend) -> None:
    jobs = sorted(add_job(backend.database) for _ in range(25))

    async def main() -> list[Any]:
        lookups = Lookups(backend)
        return await asyncio.gather(*[lookups.get(OWNER, job_id) for job_id in jobs * 2])

    with noted_statements(backend.database) as statements:
        found = asyncio.run(main())
    assert [job.row.id for job in found] == jobs * 2
    assert [job.queue_position for job in found] == list(range(25)) * 2
    asked = [statement for statement in statements if statement != "BEGIN"]
    assert len(asked) == 2, "the rows, and their places in the queue"


def test_a_job_that_many_ask_for_is_one_of_those_that_a_question_holds(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.lookups.MOST_AT_ONCE", 3)
    job_id = add_job(backend.database)

    async def main() -> list[Any]:
        lookups = Lookups(backend)
        return await asyncio.gather(*[lookups.get(OWNER, job_id) for _ in range(50)])

    with noted_statements(backend.database) as statements:
        assert [job.row.id for job in asyncio.run(main())] == [job_id] * 50
    assert len([statement for statement in statements if statement != "BEGIN"]) == 2


def test_more_than_one_question_holds_are_all_answered(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.lookups.MOST_AT_ONCE", 3)
    jobs = [add_job(backend.database) for _ in range(10)]

    async def main() -> list[Any]:
        lookups = Lookups(backend)
        return await asyncio.gather(*[lookups.get(OWNER, job_id) for job_id in jobs])

    assert [job.row.id for job in asyncio.run(main())] == jobs


def test_an_answer_is_never_older_than_its_request(backend: Backend) -> None:
    """Who asks while a question is under way gets the answer to the next one."""
    job_id = add_job(backend.database)

    def rename(number: int) -> None:
        with backend.database.write() as session:
            session.execute(update(Amalgamation).values(name=str(number)))

    async def main() -> None:
        lookups = Lookups(backend)
        for number in range(20):
            earlier = asyncio.create_task(lookups.get(OWNER, job_id))
            await asyncio.sleep(0)
            await asyncio.to_thread(rename, number)
            assert (await lookups.get(OWNER, job_id)).row.name == str(number)
            await earlier

    asyncio.run(main())


def test_jobs_of_others_and_no_jobs_are_not_found(backend: Backend) -> None:
    mine = add_job(backend.database)

    async def main() -> list[Any]:
        lookups = Lookups(backend)
        asked = [(OWNER, mine), ("another", mine), (OWNER, new_id(Prefix.AMALGAMATION)), (OWNER, "x' OR 1=1")]
        return await asyncio.gather(*[lookups.get(*each) for each in asked], return_exceptions=True)

    found, *missing = asyncio.run(main())
    assert found.row.id == mine
    assert [type(each) for each in missing] == [NotFoundError] * 3


def test_who_leaves_takes_nothing_from_the_others(backend: Backend) -> None:
    job_id = add_job(backend.database)

    async def main() -> str:
        lookups = Lookups(backend)
        leaves, stays = (asyncio.create_task(lookups.get(OWNER, job_id)) for _ in range(2))
        await asyncio.sleep(0)
        leaves.cancel()
        return str((await stays).row.id)

    assert asyncio.run(main()) == job_id


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_database_that_fails_is_told_to_all_and_asked_again(backend: Backend, tmp_path: Any) -> None:
    job_id = add_job(backend.database)
    empty = Database(f"sqlite:///{tmp_path / 'without-tables.db'}")

    async def main() -> None:
        lookups = Lookups(replace(backend, database=empty))
        asked = [lookups.get(OWNER, job_id) for _ in range(2)]
        for error in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(error, SQLAlchemyError)
        with pytest.raises(SQLAlchemyError):
            await lookups.get(OWNER, job_id)

    asyncio.run(main())
    empty.close()
