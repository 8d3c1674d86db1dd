"""Queries over the keys of POSTs that may be repeated: who is carrying one out, and what was answered.

A key is claimed before anything is done, in a transaction of its own, so that every process sees it; the
answer takes the claim's place in the transaction that makes the object. A claim that nobody renews runs out.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from sqlalchemy import Table, and_, bindparam, delete, func, or_, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.persistence.tables import IdempotencyKey
from app.persistence.time import now

KEPT_SECONDS = 24 * 3600
"""After this long a key is as good as new."""
CLAIM_SECONDS = 60.0
"""A request that has not shown itself for this long has died: another one may carry it out."""
IN_FLIGHT = 0
"""The status while there is no answer."""

_TABLE: Table = IdempotencyKey.__table__  # type: ignore[assignment]  # a mapped class has a Table
_KEY = (_TABLE.c.api_key_id, _TABLE.c.key, _TABLE.c.route)
_INSERTS: dict[str, Callable[..., Any]] = {"postgresql": postgresql.insert, "sqlite": sqlite.insert}


@dataclass(frozen=True)
class Claim:
    """One request's hold on a key."""

    api_key_id: str
    route: str
    key: str
    id: str
    """Of this request: the fencing token of what it writes."""

    @property
    def of(self) -> tuple[str, str, str]:
        """The key that it holds. Several are taken in this order: two must not wait for each other."""
        return self.api_key_id, self.key, self.route

    @property
    def binds(self) -> dict[str, Any]:
        """As parameters of the statements below."""
        return {f"of_{name}": value for name, value in vars(self).items()}


def find_all(session: Session, claims: Collection[Claim]) -> dict[tuple[str, str, str], IdempotencyKey]:
    """By key, the answer under it, or somebody's claim to give one; unless it is too old."""
    named = tuple_(*_KEY).in_(sorted({claim.of for claim in claims}))
    rows = session.scalars(select(IdempotencyKey).where(named, _TABLE.c.created_at > now(-KEPT_SECONDS)))
    return {(row.api_key_id, row.key, row.route): row for row in rows}


def take_all(session: Session, asked: Sequence[tuple[Claim, str]]) -> set[str]:
    """Take those keys that nobody has used, or whose time is over, each with the fingerprint of its request.

    A claim takes its own again: whoever asked for it may not have heard that it was given. Answers the ids of
    the claims that have theirs. Each key at most once; one statement, of `Database.write_alone`.
    """
    rows = [
        {
            "api_key_id": claim.api_key_id,
            "route": claim.route,
            "key": claim.key,
            "fingerprint": fingerprint,
            "resource_id": claim.id,
            "response": {},
            "status": IN_FLIGHT,
        }
        for claim, fingerprint in sorted(asked, key=lambda each: each[0].of)
    ]
    taking = _taking(session.get_bind().dialect.name)
    return set(session.connection().execute(taking, rows).scalars())


def renew(session: Session, claim: Claim) -> None:
    """Who has it is still at it."""
    session.connection().execute(_RENEW, claim.binds)


def settle(session: Session, answers: Sequence[tuple[Claim, dict[str, Any]]]) -> bool:
    """Put answers into the places of claims; False when another request has one of the keys by now."""
    rows = [claim.binds | answer for claim, answer in sorted(answers, key=lambda each: each[0].of)]
    return session.connection().execute(_SETTLE, rows).rowcount == len(rows)


def release_all(session: Session, claims: Collection[Claim]) -> None:
    """Nothing was made: the keys are as good as new."""
    session.connection().execute(
        _RELEASE, [claim.binds for claim in sorted(claims, key=lambda each: each.of)]
    )


def count_expired(session: Session) -> int:
    """How many answers are too old to be replayed."""
    query = select(func.count()).where(IdempotencyKey.created_at <= now(-KEPT_SECONDS))
    return session.scalar(query) or 0


def remove_expired(session: Session) -> None:
    """Forget them."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at <= now(-KEPT_SECONDS)))


@cache
def _taking(dialect: str) -> Any:
    insert = _INSERTS[dialect](_TABLE)
    is_free = or_(
        _TABLE.c.created_at <= now(-KEPT_SECONDS),
        and_(_TABLE.c.status == IN_FLIGHT, _TABLE.c.created_at <= now(-CLAIM_SECONDS)),
        and_(_TABLE.c.status == IN_FLIGHT, _TABLE.c.resource_id == insert.excluded.resource_id),
    )
    taken = {column.name: insert.excluded[column.name] for column in _TABLE.c if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=_KEY, set_=taken, where=is_free).returning(
        _TABLE.c.resource_id
    )


_IS_KEY = and_(*[column == bindparam(f"of_{column.name}") for column in _KEY])
_IS_MINE = and_(_IS_KEY, _TABLE.c.status == IN_FLIGHT, _TABLE.c.resource_id == bindparam("of_id"))
_RENEW = update(_TABLE).where(_IS_MINE).values(created_at=now())
_SETTLE = update(_TABLE).where(_IS_MINE)
_RELEASE = delete(_TABLE).where(_IS_MINE)
