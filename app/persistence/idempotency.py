"""Queries over the keys of POSTs that may be repeated: who is carrying one out, and what was answered.

A key is claimed before anything is done, in a transaction of its own, so that every process sees it; the
answer takes the claim's place in the transaction that makes the object. A claim that nobody renews runs out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from operator import itemgetter
from typing import Any

from sqlalchemy import Table, and_, bindparam, delete, func, or_, select, update
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
        """The key that it holds."""
        return self.api_key_id, self.route, self.key

    @property
    def binds(self) -> dict[str, Any]:
        """As parameters of the statements below."""
        return {f"of_{name}": value for name, value in vars(self).items()}


def find(session: Session, claim: Claim) -> IdempotencyKey | None:
    """The answer under this key, or somebody's claim to give one; unless it is too old."""
    return session.scalar(_FIND, claim.binds)


def take_all(session: Session, asked: Sequence[tuple[Claim, str]]) -> set[str]:
    """Take those keys that nobody has used, or whose time is over, each with the fingerprint of its request.

    Answers the ids of the claims that have theirs. Each key at most once; one statement, of
    `Database.write_alone`.
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
        for claim, fingerprint in asked
    ]
    rows.sort(
        key=itemgetter("api_key_id", "key", "route")
    )  # two who take the same must not wait for each other
    taking = _taking(session.get_bind().dialect.name)
    return set(session.connection().execute(taking, rows).scalars())


def renew(session: Session, claim: Claim) -> None:
    """Who has it is still at it."""
    session.connection().execute(_RENEW, claim.binds)


def settle(session: Session, answers: Sequence[tuple[Claim, dict[str, Any]]]) -> bool:
    """Put answers into the places of claims; False when another request has one of the keys by now."""
    rows = [claim.binds | answer for claim, answer in answers]
    return session.connection().execute(_SETTLE, rows).rowcount == len(rows)


def release(session: Session, claim: Claim) -> None:
    """Nothing was made: the key is as good as new."""
    session.connection().execute(_RELEASE, claim.binds)


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
    )
    taken = {column.name: insert.excluded[column.name] for column in _TABLE.c if not column.primary_key}
    return insert.on_conflict_do_update(index_elements=_KEY, set_=taken, where=is_free).returning(
        _TABLE.c.resource_id
    )


_IS_KEY = and_(*[column == bindparam(f"of_{column.name}") for column in _KEY])
_IS_MINE = and_(_IS_KEY, _TABLE.c.status == IN_FLIGHT, _TABLE.c.resource_id == bindparam("of_id"))
_FIND = select(IdempotencyKey).where(_IS_KEY, _TABLE.c.created_at > now(-KEPT_SECONDS))
_RENEW = update(_TABLE).where(_IS_MINE).values(created_at=now())
_SETTLE = update(_TABLE).where(_IS_MINE)
_RELEASE = delete(_TABLE).where(_IS_MINE)
