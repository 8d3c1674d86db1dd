"""Jobs of requests that come at the same time: every step once for all, and for each of them its own end."""

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionFreeError
from sqlalchemy.orm import Session

from app.domain.access import Caller, Scope
from app.domain.errors import InvalidRequestError, RequestInFlightError, TooManyRequestsError
from app.domain.recipe import Recipe
from app.persistence import checkpoints, idempotency, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Corpus, IdempotencyKey
from app.services import corpora, submission, submission_checks
from app.services.backend import Backend
from app.services.idempotency import Answer, Claims, Once, keep_all
from app.services.jobs import Job
from app.services.submission import Submission, Submissions
from tests.api_objects import add_checkpoint, add_corpus, add_model
from tests.jobs import OWNER, add_job, events_of, job_of, noted_statements

ALICE, BOB = "alice", "bob"
Json = dict[str, Any]


def _recipe(backend: Backend, owner: str) -> Json:
    """One that is accepted."""
    teachers = [add_model(backend, labels, f"{owner}{labels}", owner) for labels in (("a", "b"), ("c", "d"))]
    return {"teachers": teachers, "corpus": add_corpus(backend, owner=owner)}


@pytest.fixture
def recipes(backend: Backend) -> dict[str, Json]:
    """One of each owner."""
    return {owner: _recipe(backend, owner) for owner in (ALICE, BOB)}


def _shown(job: Job) -> Json:
    return {"id": job.row.id, "queue_position": job.queue_position}


def _of(owner: str, body: Json, key: str | None = None) -> Submission:
    caller = Caller(f"key of {owner}", owner, frozenset(Scope))
    return Submission(caller, Recipe.model_validate(body), (), key, _shown)


def _together(backend: Backend, asked: Sequence[Submission]) -> list[Any]:
    """The end of each: an answer or an error. All of them come before the first one is looked at."""

    async def main() -> list[Any]:
        submissions = Submissions(backend)
        return await asyncio.gather(*[submissions.submit(each) for each in asked], return_exceptions=True)

    return asyncio.run(main())


def _jobs(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Amalgamation.id)))


def _made(ends: Sequence[Any]) -> set[str]:
    return {end.resource_id for end in ends if isinstance(end, Answer)}


def _kept(database: Database) -> dict[str, Json]:
    with database.read() as session:
        return dict(session.execute(select(IdempotencyKey.key, IdempotencyKey.response)).all())


def test_each_step_is_taken_once_for_all(backend: Backend, recipes: dict[str, Json]) -> None:
    asked = [_of(owner, recipes[owner], f"{owner}-{n}") for n in range(5) for owner in (ALICE, BOB)]
    with noted_statements(backend.database) as statements:
        answers = _together(backend, asked)
    for beginning in ("INSERT INTO idempotency_keys", "INSERT INTO amalgamations", "INSERT INTO events"):
        assert sum(statement.startswith(beginning) for statement in statements) == 1, beginning
    assert _made(answers) == _jobs(backend.database)
    assert len(_jobs(backend.database)) == 10
    for each, answer in zip(asked, answers, strict=True):
        job = job_of(backend.database, answer.resource_id)
        assert (job.owner, job.recipe["corpus"]) == (each.caller.owner, recipes[job.owner]["corpus"])
        assert [event.sequence for event in events_of(backend.database, job.id)] == [1]
        assert _kept(backend.database)[each.key or ""] == answer.content
    places = {answer.resource_id: answer.content["queue_position"] for answer in answers}
    assert [places[job_id] for job_id in sorted(places)] == list(range(10))


def test_what_is_wrong_with_one_is_told_to_that_one(backend: Backend, recipes: dict[str, Json]) -> None:
    foreign = recipes[ALICE] | {"corpus": recipes[BOB]["corpus"]}
    asked = [_of(ALICE, recipes[ALICE]), _of(ALICE, foreign, "free-again"), _of(BOB, recipes[BOB])]
    with noted_statements(backend.database) as statements:
        ends = _together(backend, asked)
    assert isinstance(ends[1], InvalidRequestError)
    assert [(fault.pointer, fault.code) for fault in ends[1].faults] == [("/corpus", "corpus_not_found")]
    assert len(_made(ends)) == 2
    assert _made(ends) == _jobs(backend.database)
    assert _kept(backend.database) == {}
    assert sum(each.startswith("INSERT INTO amalgamations") for each in statements) == 1, "nobody went alone"


def test_a_key_that_comes_twice_at_once_makes_one_job(backend: Backend, recipes: dict[str, Json]) -> None:
    other = recipes[ALICE] | {"name": "another"}
    first, twin, reused = _together(
        backend, [_of(ALICE, recipes[ALICE], "k"), _of(ALICE, recipes[ALICE], "k"), _of(ALICE, other, "k")]
    )
    assert isinstance(twin, RequestInFlightError)
    assert isinstance(reused, InvalidRequestError)
    assert reused.problem_code == "idempotency_key_reused"
    assert _jobs(backend.database) == {first.resource_id}
    later, fresh = _together(backend, [_of(ALICE, recipes[ALICE], "k"), _of(ALICE, recipes[ALICE], "fresh")])
    assert later == replace(first, replayed=True)
    assert _jobs(backend.database) == {first.resource_id, fresh.resource_id}


def test_a_group_counts_against_the_limit_of_queued_jobs(backend: Backend, recipes: dict[str, Json]) -> None:
    settings = backend.settings.model_copy(update={"max_queued_jobs": 3})
    add_job(backend.database, owner=ALICE)
    ends = _together(replace(backend, settings=settings), [_of(ALICE, recipes[ALICE]) for _ in range(4)])
    assert [type(end) for end in ends] == [Answer, Answer, TooManyRequestsError, TooManyRequestsError]


def test_one_whose_corpus_is_deleted_meanwhile_is_refused_alone(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    check, second = submission_checks.check, recipes[ALICE] | {"corpus": add_corpus(backend, owner=ALICE)}

    def check_then_delete(*arguments: Any, **named: Any) -> Any:
        findings = check(*arguments, **named)
        if arguments[2].corpus == second["corpus"] and not findings.faults:
            corpora.delete(backend, ALICE, second["corpus"])
        return findings

    monkeypatch.setattr(submission_checks, "check", check_then_delete)
    ends = _together(backend, [_of(ALICE, recipes[ALICE]), _of(ALICE, second), _of(BOB, recipes[BOB])])
    assert isinstance(ends[1], InvalidRequestError)
    assert ends[1].faults[0].pointer == "/corpus"
    assert len(_made(ends)) == 2
    assert _made(ends) == _jobs(backend.database)


def test_one_whose_key_goes_to_another_request_meanwhile_makes_nothing(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As happens to a process that was frozen for a minute."""
    database, check = backend.database, submission_checks.check

    def check_then_steal(*arguments: Any, **named: Any) -> Any:
        with database.write() as session:
            stolen = update(IdempotencyKey).where(IdempotencyKey.key == "order-1")
            session.execute(stolen.values(resource_id="another"))
        return check(*arguments, **named)

    monkeypatch.setattr(submission_checks, "check", check_then_steal)
    ends = _together(backend, [_of(ALICE, recipes[ALICE], f"order-{n}") for n in range(3)])
    assert isinstance(ends[1], RequestInFlightError)
    assert _made(ends) == _jobs(database)
    assert _kept(database) == {"order-0": ends[0].content, "order-1": {}, "order-2": ends[2].content}


def test_a_commit_that_nobody_hears_of_makes_no_second_job(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection is lost after the database has committed: each gets the job that it has."""
    commit = Session.commit

    def commit_and_be_lost(self: Session) -> None:
        has_jobs = any(isinstance(each, Amalgamation) for each in self)
        commit(self)
        if has_jobs:
            raise OperationalError("COMMIT", {}, ConnectionError("the server has gone away"))

    monkeypatch.setattr(Session, "commit", commit_and_be_lost)
    ends = _together(
        backend, [_of(ALICE, recipes[ALICE]), _of(BOB, recipes[BOB], "k"), _of(BOB, recipes[BOB])]
    )
    assert len(_made(ends)) == 3
    assert _made(ends) == _jobs(backend.database)
    assert _kept(backend.database)["k"]["id"] == ends[1].resource_id


def test_a_key_that_cannot_be_given_back_harms_nobody_else(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no connection is free in time: the jobs of the others are committed by then."""

    def fail(*_: Any) -> Any:
        raise NoConnectionFreeError

    monkeypatch.setattr(idempotency, "release_all", fail)
    refused = recipes[ALICE] | {"corpus": recipes[BOB]["corpus"]}
    ends = _together(backend, [_of(ALICE, recipes[ALICE]), _of(ALICE, refused, "k"), _of(BOB, recipes[BOB])])
    assert isinstance(ends[1], InvalidRequestError)
    assert len(_made(ends)) == 2
    assert _made(ends) == _jobs(backend.database)


def test_a_group_that_fails_and_keeps_its_keys_is_in_nobodys_way(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One outage, in which neither the jobs are stored nor the keys given back."""
    admit = submission.admit_all

    def fail_in_groups(database: Database, entries: Any, *, wait: bool) -> Any:
        if not wait:
            raise OperationalError("INSERT", {}, ConnectionError("the server has gone away"))
        return admit(database, entries, wait=wait)

    def fail(*_: Any) -> Any:
        raise OperationalError("DELETE", {}, ConnectionError("the server has gone away"))

    monkeypatch.setattr(submission, "admit_all", fail_in_groups)
    monkeypatch.setattr(idempotency, "release_all", fail)
    ends = _together(backend, [_of(ALICE, recipes[ALICE], f"order-{n}") for n in range(3)])
    assert len(_made(ends)) == 3
    assert _made(ends) == _jobs(backend.database)


def test_one_that_fails_unexpectedly_harms_nobody_else(backend: Backend, recipes: dict[str, Json]) -> None:
    def fail(_job: Job) -> Json:
        raise ZeroDivisionError

    asked = [_of(ALICE, recipes[ALICE], f"order-{n}") for n in range(3)]
    asked[1] = replace(asked[1], render=fail)
    ends = _together(backend, asked)
    assert isinstance(ends[1], ZeroDivisionError)
    assert _made(ends) == _jobs(backend.database)
    assert set(_kept(backend.database)) == {"order-0", "order-2"}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_one_whose_corpus_is_being_deleted_waits_and_the_others_do_not(
    backend: Backend, recipes: dict[str, Json]
) -> None:
    """On SQLite there is one writer at a time, and everybody waits for it."""

    async def main() -> None:
        submissions = Submissions(backend)
        with backend.database.write() as session:
            assert owned.find(session, Corpus, recipes[ALICE]["corpus"], owner=ALICE, lock=True)
            slow = asyncio.create_task(submissions.submit(_of(ALICE, recipes[ALICE])))
            quick = await asyncio.wait_for(submissions.submit(_of(BOB, recipes[BOB])), 30)
            slower = asyncio.create_task(submissions.submit(_of(ALICE, recipes[ALICE])))
            await asyncio.sleep(0.3)  # that one was alone in its group
            later = await asyncio.wait_for(submissions.submit(_of(BOB, recipes[BOB])), 30)
            assert {quick.resource_id, later.resource_id} == _jobs(backend.database)
            assert not slow.done()
            assert not slower.done()
        waited = [await asyncio.wait_for(each, 30) for each in (slow, slower)]
        assert _made([quick, later, *waited]) == _jobs(backend.database)

    asyncio.run(main())


def test_each_has_its_own_error_when_the_database_is_away(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("BEGIN", {}, ConnectionError("the server has gone away"))

    monkeypatch.setattr("app.persistence.database.Database.write", fail)
    failed = _together(backend, [_of(ALICE, recipes[ALICE]) for _ in range(5)])
    assert [type(error) for error in failed] == [OperationalError] * 5
    assert len({id(error) for error in failed}) == 5


def test_more_than_go_together_are_all_admitted(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.submission.MOST_AT_ONCE", 3)
    with noted_statements(backend.database) as statements:
        answers = _together(backend, [_of(ALICE, recipes[ALICE]) for _ in range(10)])
    assert sum(each.startswith("INSERT INTO amalgamations") for each in statements) == 4
    assert len(_made(answers)) == 10
    assert _made(answers) == _jobs(backend.database)


def test_who_leaves_has_made_a_job_all_the_same(backend: Backend, recipes: dict[str, Json]) -> None:
    """The request was sent: that nobody waits for its answer does not undo it, nor harms the others."""

    async def main() -> Answer:
        submissions = Submissions(backend)
        leaves = asyncio.create_task(submissions.submit(_of(ALICE, recipes[ALICE])))
        stays = asyncio.create_task(submissions.submit(_of(BOB, recipes[BOB])))
        await asyncio.sleep(0)
        leaves.cancel()
        return await stays

    answer = asyncio.run(main())
    assert answer.resource_id in _jobs(backend.database)
    assert len(_jobs(backend.database)) == 2


def test_what_takes_long_by_itself_is_not_quick(backend: Backend, recipes: dict[str, Json]) -> None:
    quick = recipes[ALICE]
    first, second = quick["teachers"]
    assert _of(ALICE, quick, "k").is_quick
    for slow in (
        {"corpus": {"texts": ["one", "two"]}},
        {"teachers": [first, "acme/intents"]},
        {"teachers": [first, f"stu-{'0' * 32}@step-20"]},
        {"teachers": [first, f"stu-{'0' * 32}@step-20@main"]},
        {"teachers": [f"mdl-{n:032x}" for n in range(9)]},
        {"teachers": [first, {"model": second, "labels": {f"label {n}": "one" for n in range(1001)}}]},
        {"student": {"init_from": "acme/encoder"}},
        {"student": {"layers": 1}},
    ):
        assert not _of(ALICE, quick | slow).is_quick
    assert not _of(ALICE, quick, "no key, for it is not ASCII: ä").is_quick


def test_who_takes_long_keeps_nobody_waiting(
    backend: Backend, recipes: dict[str, Json], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two who are not quick: one by what it asks for, the other by how many labels its teachers have."""
    gate, check = threading.Event(), submission_checks.check
    many = add_model(backend, [f"label {n}" for n in range(1001)], owner=ALICE)
    inline = _of(ALICE, recipes[ALICE] | {"corpus": {"texts": ["one", "two"]}})
    labelled = _of(ALICE, recipes[ALICE] | {"teachers": [many, recipes[ALICE]["teachers"][0]]}, "k")

    def check_slowly(*arguments: Any, **named: Any) -> Any:
        if arguments[2] in (inline.recipe, labelled.recipe):
            assert gate.wait(30)
        return check(*arguments, **named)

    monkeypatch.setattr(submission_checks, "check", check_slowly)

    async def main() -> list[Answer]:
        submissions = Submissions(backend)
        slow = [asyncio.create_task(submissions.submit(each)) for each in (inline, labelled)]
        quick = await asyncio.wait_for(submissions.submit(_of(BOB, recipes[BOB])), 20)
        assert not any(each.done() for each in slow)
        gate.set()
        return [quick, *[await each for each in slow]]

    answers = asyncio.run(main())
    assert len(_made(answers)) == 3
    assert _made(answers) == _jobs(backend.database)


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_groups_with_the_same_keys_do_not_wait_for_each_other_for_ever(backend: Backend) -> None:
    """As two processes whose clients have lost their patience: they take the keys in the same order."""
    database = backend.database
    onces = [Once.of("key-1", "POST /things", f"order-{n}", {}) for n in range(5)]

    def carry_out(number: int) -> int:
        asked = onces[::-1] if number % 2 else onces
        mine = [Once(replace(each.claim, id=f"req-{number}"), each.fingerprint) for each in asked]
        with Claims().held(database, mine) as ends, database.write() as session:
            ours = [each for each, end in zip(mine, ends, strict=True) if end is None]
            keep_all(session, [(each, Answer("", {}, 202)) for each in ours])
            session.rollback()  # so that the next one finds them free
        return len(asked)

    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(carry_out, range(200))) == {5}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_who_needs_checkpoints_and_who_removes_them_do_not_wait_for_each_other_for_ever(
    backend: Backend,
) -> None:
    """They take the rows in the same order."""
    job_id = add_job(backend.database)
    ids = [add_checkpoint(backend, job_id, step) for step in (100, 20, 3)]

    def hold() -> int:
        with backend.database.write() as session:
            return len(owned.hold_all(session, {(OWNER, each) for each in ids}))

    def remove() -> int:
        with backend.database.write() as session:
            for way in ("indexscan", "bitmapscan"):  # or the rows would come in order by themselves
                session.execute(text(f"SET LOCAL enable_{way} = off"))
            return len(checkpoints.lock_all(session, job_id))

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(what) for _ in range(100) for what in (hold, remove)]
        assert {each.result() for each in asked} == {3}
