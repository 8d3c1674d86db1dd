"""Who may carry out a request under an `Idempotency-Key`: one at a time, whoever dies, at any process."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from app.domain.errors import InvalidRequestError, RequestInFlightError
from app.domain.identifiers import Prefix, new_id
from app.persistence.database import Database
from app.persistence.idempotency import CLAIM_SECONDS
from app.persistence.tables import Counter, IdempotencyKey
from app.persistence.time import now
from app.services.backend import Backend
from app.services.caretaker import renew_claims
from app.services.idempotency import RENEW_SECONDS, Answer, Claims, Once, keeping

ROUTE = "POST /things"


class Died(BaseException):
    """The process is gone, with all that it had in hand."""


@pytest.fixture
def elsewhere(database: Database) -> Iterator[Database]:
    """The same database, at another process."""
    opened = Database(database.url)
    yield opened
    opened.close()


def _once(body: Any = "a") -> Once:
    return Once.of("key-1", ROUTE, "order-1", body)


def _make(
    database: Database, once: Once, meanwhile: Callable[[], Any] = lambda: None
) -> Callable[[], Answer]:
    """Creates a row, and keeps the answer with it."""

    def run() -> Answer:
        meanwhile()
        with database.write() as session:
            name = new_id(Prefix.CORPUS)
            session.add(Counter(name=name, value=1))
            session.flush()
            return keeping(once, session, Answer(name, {"id": name}, 201))

    return run


def _made(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Counter.name)))


def _let_pass(database: Database, seconds: float) -> None:
    with database.write() as session:
        session.execute(update(IdempotencyKey).values(created_at=_earlier(seconds)))


def _earlier(seconds: float) -> Any:
    return now(-seconds)


def test_who_comes_while_the_first_is_in_flight_is_refused_at_every_process(
    database: Database, elsewhere: Database
) -> None:
    refused: list[RequestInFlightError] = []

    def again() -> None:
        for at in (database, elsewhere):
            once = _once()
            with pytest.raises(RequestInFlightError) as caught:
                Claims().carry_out(at, once, _make(at, once))
            refused.append(caught.value)
        other = _once("b")
        with pytest.raises(InvalidRequestError) as reused:
            Claims().carry_out(elsewhere, other, _make(elsewhere, other))
        assert reused.value.problem_code == "idempotency_key_reused"

    once = _once()
    first = Claims().carry_out(database, once, _make(database, once, again))
    assert (len(refused), first.replayed) == (2, False)
    later = _once()
    replay = Claims().carry_out(elsewhere, later, _make(elsewhere, later))
    assert replay == replace(first, replayed=True)
    assert _made(database) == [first.resource_id]


def test_a_request_that_fails_gives_its_key_back(database: Database) -> None:
    def fail() -> None:
        raise InvalidRequestError("no")

    once = _once()
    with pytest.raises(InvalidRequestError):
        Claims().carry_out(database, once, _make(database, once, fail))
    other = _once("b")
    assert not Claims().carry_out(database, other, _make(database, other)).replayed


def test_a_request_that_dies_blocks_its_key_for_a_minute(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die() -> None:
        raise Died

    with monkeypatch.context() as patch:  # it is dead: it cannot give anything back
        patch.setattr("app.services.idempotency._release_all", lambda *_: None)
        once = _once()
        with pytest.raises(Died):
            Claims().carry_out(database, once, _make(database, once, die))
    _let_pass(database, CLAIM_SECONDS - 5)
    again = _once()
    with pytest.raises(RequestInFlightError):
        Claims().carry_out(database, again, _make(database, again))
    _let_pass(database, CLAIM_SECONDS)
    assert Claims().carry_out(database, again, _make(database, again)).status == 201
    assert len(_made(database)) == 1


def test_a_request_that_was_taken_for_dead_makes_nothing(database: Database, elsewhere: Database) -> None:
    """A process that is frozen for longer than a minute, and goes on."""
    answers: list[Answer] = []

    def another_takes_over() -> None:
        _let_pass(database, CLAIM_SECONDS)
        once = _once()
        answers.append(Claims().carry_out(elsewhere, once, _make(elsewhere, once)))

    late = _once()
    with pytest.raises(RequestInFlightError):
        Claims().carry_out(database, late, _make(database, late, another_takes_over))
    assert _made(database) == [answers[0].resource_id]
    repeated = _once()
    assert Claims().carry_out(database, repeated, _make(database, repeated)).resource_id == _made(database)[0]


def test_a_request_that_takes_long_keeps_its_key(backend: Backend) -> None:
    """The caretaker of its process shows that it lives; short ones cost nothing more."""
    database, clock = backend.database, [0.0]
    claims = Claims(lambda: clock[0])
    object.__setattr__(backend, "claims", claims)

    def take_long() -> None:
        renew_claims(backend)
        _let_pass(database, CLAIM_SECONDS)
        clock[0] = RENEW_SECONDS
        renew_claims(backend)
        once = _once()
        with pytest.raises(RequestInFlightError):
            Claims().carry_out(database, once, _make(database, once))

    once = _once()
    assert claims.carry_out(database, once, _make(database, once, take_long)).status == 201
    clock[0] *= 2
    renew_claims(backend)
    with database.read() as session:
        assert session.scalars(select(IdempotencyKey.status)).all() == [201]


def test_an_answer_is_stored_with_its_object_or_not_at_all(database: Database) -> None:
    once = _once()

    def run() -> Answer:
        with database.write() as session:
            session.add(Counter(name="x", value=1))
            _keep_and_break(session)
        raise AssertionError

    def _keep_and_break(session: Session) -> None:
        keeping(once, session, Answer("x", {}, 201))
        raise Died

    with pytest.raises(Died):
        Claims().carry_out(database, once, run)
    assert _made(database) == []
    with database.read() as session:
        assert session.scalars(select(IdempotencyKey)).all() == []


def test_without_a_key_everything_is_carried_out(database: Database) -> None:
    def run() -> Answer:
        return Answer("x", {}, 201)

    assert [Claims().carry_out(database, None, run) for _ in range(2)] == [run(), run()]
