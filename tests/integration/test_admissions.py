"""Jobs of requests that come at the same time: one transaction for all, and for each of them its own end."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import select, text, update
from sqlalchemy.exc import OperationalError

from app.domain.errors import InvalidRequestError, RequestInFlightError
from app.persistence import checkpoints, owned
from app.persistence.database import Database
from app.persistence.tables import Amalgamation, Corpus, IdempotencyKey
from app.services.admissions import Admissions, Entry
from app.services.backend import Backend
from app.services.idempotency import Answer, Claims, Once
from tests.api_objects import add_checkpoint, add_corpus
from tests.jobs import OWNER, add_job, events_of, job_of, new_job, noted_statements

ALICE, BOB = "alice", "bob"


def _entry(owner: str, corpus_id: str, once: Once | None = None) -> Entry:
    job = new_job(owner=owner, corpus_id=corpus_id)
    return Entry(job, once, lambda row, before: {"id": row.id, "queue_position": before})


def _together(admissions: Admissions, entries: Sequence[Entry]) -> list[Future[Answer]]:
    """Each by a thread of its own, all of them while a transaction is under way."""
    with ThreadPoolExecutor(len(entries)) as threads, admissions._turn:
        asked = [threads.submit(admissions.admit, entry) for entry in entries]
        while len(admissions._waiting) < len(entries):
            time.sleep(0.001)
    return asked


def _jobs(database: Database) -> set[str]:
    with database.read() as session:
        return set(session.scalars(select(Amalgamation.id)))


def test_all_who_come_during_a_transaction_share_the_next_one(backend: Backend) -> None:
    corpora = {owner: add_corpus(backend, owner=owner) for owner in (ALICE, BOB)}
    entries = [_entry(owner, corpora[owner]) for owner in (ALICE, BOB) * 5]
    with noted_statements(backend.database) as statements:
        answers = [each.result() for each in _together(backend.admissions, entries)]
    for kind in ("INSERT INTO amalgamations", "INSERT INTO events"):
        assert sum(statement.startswith(kind) for statement in statements) == 1, kind
    assert [answer.resource_id for answer in answers] == [entry.job.id for entry in entries]
    for place, job_id in enumerate(sorted(_jobs(backend.database))):
        answer = next(each for each in answers if each.resource_id == job_id)
        assert answer.content == {"id": job_id, "queue_position": place}
        assert [event.sequence for event in events_of(backend.database, job_id)] == [1]
        assert job_of(backend.database, job_id).owner in corpora


def test_one_whose_corpus_is_gone_is_refused_alone(backend: Backend) -> None:
    mine = add_corpus(backend, owner=ALICE)
    entries = [_entry(ALICE, mine), _entry(ALICE, "cor-gone"), _entry(BOB, mine), _entry(ALICE, mine)]
    first, gone, foreign, last = _together(backend.admissions, entries)
    for refused in (gone, foreign):
        error = refused.exception()
        assert isinstance(error, InvalidRequestError)
        assert [(fault.pointer, fault.code) for fault in error.faults] == [("/corpus", "deleted")]
    assert _jobs(backend.database) == {first.result().resource_id, last.result().resource_id}


def test_one_whose_key_was_taken_over_makes_nothing_and_the_others_keep_theirs(backend: Backend) -> None:
    database, corpus_id = backend.database, add_corpus(backend, owner=ALICE)
    onces = [Once.of("key-1", "POST /amalgamations", f"order-{n}", {}) for n in range(3)]
    entries = [_entry(ALICE, corpus_id, once) for once in onces]

    def claim_all(rest: Sequence[Entry]) -> list[Future[Answer]]:
        """Within the claims of all; then that of the second goes over to another request."""
        if not rest:
            with database.write() as session:
                stolen = update(IdempotencyKey).where(IdempotencyKey.key == "order-1")
                session.execute(stolen.values(resource_id="another"))
            return _together(backend.admissions, entries)
        done: list[Future[Answer]] = []

        def run() -> Answer:
            done.extend(claim_all(rest[1:]))
            return Answer("", {}, 202)

        Claims().carry_out(database, rest[0].once, run)
        return done

    first, taken, last = claim_all(entries)
    assert isinstance(taken.exception(), RequestInFlightError)
    assert _jobs(database) == {first.result().resource_id, last.result().resource_id}
    with database.read() as session:
        kept = dict(session.execute(select(IdempotencyKey.key, IdempotencyKey.response)).all())
    assert kept == {"order-0": first.result().content, "order-1": {}, "order-2": last.result().content}


def test_what_the_database_cannot_hold_harms_nobody_else(backend: Backend) -> None:
    corpus_id = add_corpus(backend, owner=ALICE)
    entries = [_entry(ALICE, corpus_id) for _ in range(3)]
    entries[1].job.user_metadata = {"a": object()}  # type: ignore[dict-item]  # no JSON
    first, broken, last = _together(backend.admissions, entries)
    assert broken.exception() is not None
    assert _jobs(backend.database) == {first.result().resource_id, last.result().resource_id}


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_one_whose_corpus_is_being_deleted_waits_and_the_others_do_not(backend: Backend) -> None:
    """On SQLite there is one writer at a time, and everybody waits for it."""
    corpora = {owner: add_corpus(backend, owner=owner) for owner in (ALICE, BOB)}
    with ThreadPoolExecutor(2) as threads:
        with backend.database.write() as session:
            assert owned.find(session, Corpus, corpora[ALICE], owner=ALICE, lock=True)
            slow = threads.submit(backend.admissions.admit, _entry(ALICE, corpora[ALICE]))
            quick = threads.submit(backend.admissions.admit, _entry(BOB, corpora[BOB]))
            assert quick.result(timeout=30).resource_id in _jobs(backend.database)
            assert not slow.done()
        assert slow.result(timeout=30).resource_id in _jobs(backend.database)


def test_each_has_its_own_error_when_the_database_is_away(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("BEGIN", {}, ConnectionError("the server has gone away"))

    monkeypatch.setattr("app.persistence.database.Database.write", fail)
    entries = [_entry(ALICE, "cor-any") for _ in range(5)]
    failed = [each.exception() for each in _together(backend.admissions, entries)]
    assert [type(error) for error in failed] == [OperationalError] * 5
    assert len({id(error) for error in failed}) == 5
    assert all(error is not None and error.__context__ is None for error in failed)


def test_whoever_has_the_turn_and_dies_takes_nobody_along(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    corpus_id, commit, died = add_corpus(backend, owner=ALICE), Admissions._commit, threading.Event()

    def die_once(self: Admissions, group: Sequence[Entry], *, wait: bool) -> list[Answer]:
        if not died.is_set():
            died.set()
            raise SystemExit
        return commit(self, group, wait=wait)

    monkeypatch.setattr(Admissions, "_commit", die_once)
    ends = _together(backend.admissions, [_entry(ALICE, corpus_id) for _ in range(4)])
    dead = [each for each in ends if isinstance(each.exception(timeout=30), SystemExit)]
    assert len(dead) == 1
    assert {each.result().resource_id for each in ends if each not in dead} == _jobs(backend.database)


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


def test_more_than_one_transaction_takes_are_all_admitted(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.admissions.MOST_AT_ONCE", 3)
    corpus_id = add_corpus(backend, owner=ALICE)
    entries = [_entry(ALICE, corpus_id) for _ in range(10)]
    answers = [each.result() for each in _together(backend.admissions, entries)]
    assert {answer.resource_id for answer in answers} == _jobs(backend.database)
    assert len(answers) == 10
