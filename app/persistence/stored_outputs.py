"""Queries over the teachers' stored outputs: what is there, who needs it, what may go.

Whoever adds or removes a file of the store does it while its row is locked, so that a row and its file come
and go together. A job asks for all its pieces in advance (`need`); from then on nobody removes them until it
has ended.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice

from sqlalchemy import ColumnElement, delete, exists, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from app.domain.status import TERMINAL
from app.domain.stored_outputs import Computation
from app.persistence.tables import Amalgamation, Counter, NeededOutput, StoredOutput
from app.persistence.time import now

AT_ONCE = 500
"""Keys in a statement: SQLite takes no longer lists of parameters everywhere."""
REUSED, COMPUTED = "stored_shards_reused", "stored_shards_computed"
"""Counters: shards that teachers were not asked about, because all was there, and the others."""


@dataclass(frozen=True)
class Unneeded:
    """A piece that no living job asked for."""

    key: str
    size_bytes: int
    last_used_at: datetime


def chunks(keys: Iterable[str]) -> Iterator[list[str]]:
    """Sorted, `AT_ONCE` at a time: in one order, so that no two jobs wait for each other's rows."""
    ordered = iter(sorted(keys))
    while chunk := list(islice(ordered, AT_ONCE)):
        yield chunk


def need(session: Session, job_id: str, keys: Sequence[str]) -> set[str]:
    """Ask for at most `AT_ONCE` pieces: none of them is removed while the job lives.

    Returns:
        The keys of those that are there.
    """
    session.execute(
        _insert(session, NeededOutput).on_conflict_do_nothing(),
        [{"amalgamation_id": job_id, "key": key} for key in keys],
    )
    # Locked in the order of the keys: an UPDATE of several rows would take them in any order.
    rows = select(StoredOutput.key).where(StoredOutput.key.in_(keys)).order_by(StoredOutput.key)
    found = list(session.scalars(rows.with_for_update()))
    session.execute(update(StoredOutput).where(StoredOutput.key.in_(found)).values(last_used_at=now()))
    return set(found)


def present(session: Session, keys: Sequence[str]) -> set[str]:
    """Those of at most `AT_ONCE` keys that are there; nothing is asked for."""
    return set(session.scalars(select(StoredOutput.key).where(StoredOutput.key.in_(keys))))


def record(session: Session, key: str, size_bytes: int, computation: Computation) -> None:
    """A piece is there; its row is locked until the transaction ends, and now its file may be moved in."""
    row = {"key": key, "size_bytes": size_bytes, "created_at": now(), "last_used_at": now()}
    row |= {"precision": computation.precision, "software": computation.software}
    again = {"size_bytes": size_bytes, "last_used_at": now()}
    session.execute(
        _insert(session, StoredOutput).values(row).on_conflict_do_update(index_elements=["key"], set_=again)
    )


def latest_computation(session: Session, precision: str | None) -> Computation | None:
    """What computed the piece that was used last; `precision` None: of any."""
    query = select(StoredOutput.precision, StoredOutput.software).order_by(StoredOutput.last_used_at.desc())
    if precision is not None:
        query = query.where(StoredOutput.precision == precision)
    row = session.execute(query.limit(1)).one_or_none()
    return None if row is None else Computation(*row)


def size(session: Session) -> tuple[int, int]:
    """How many pieces there are, and their bytes."""
    count, total = session.execute(select(func.count(), func.sum(StoredOutput.size_bytes))).one()
    return count, int(total or 0)


def least_recently_used(session: Session, limit: int) -> list[Unneeded]:
    """The pieces that no living job asked for, the longest unused first."""
    columns = (StoredOutput.key, StoredOutput.size_bytes, StoredOutput.last_used_at)
    query = select(*columns).where(_is_unneeded()).order_by(StoredOutput.last_used_at, StoredOutput.key)
    return [Unneeded(*row) for row in session.execute(query.limit(limit))]


def remove(session: Session, piece: Unneeded) -> bool:
    """Remove the row, unless somebody asked for the piece since it was found. Remove its file then.

    A job that asks at the same time touches the row first: this one waits for its lock, sees another
    `last_used_at`, and does nothing. The job that asks later finds no row.
    """
    same = (StoredOutput.key == piece.key, StoredOutput.last_used_at == piece.last_used_at)
    removed = delete(StoredOutput).where(*same, _is_unneeded()).returning(StoredOutput.key)
    return session.scalar(removed) is not None


def has_needs_of_ended(session: Session) -> bool:
    """Whether `forget_needs` has anything to do."""
    ended = select(Amalgamation.id).where(Amalgamation.status.in_(TERMINAL))
    return bool(session.scalar(select(exists().where(NeededOutput.amalgamation_id.in_(ended)))))


def forget_needs(session: Session) -> None:
    """Of jobs that have ended."""
    ended = select(Amalgamation.id).where(Amalgamation.status.in_(TERMINAL))
    session.execute(delete(NeededOutput).where(NeededOutput.amalgamation_id.in_(ended)))


def count(session: Session, name: str, more: int) -> None:
    """Add to a counter."""
    insert = _insert(session, Counter).values(name=name, value=more)
    session.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_={"value": Counter.value + more})
    )


def counted(session: Session, name: str) -> int:
    """The value of a counter."""
    return session.scalar(select(Counter.value).where(Counter.name == name)) or 0


def _is_unneeded() -> ColumnElement[bool]:
    needed = select(NeededOutput.key).join(Amalgamation, Amalgamation.id == NeededOutput.amalgamation_id)
    live = needed.where(NeededOutput.key == StoredOutput.key, Amalgamation.status.not_in(TERMINAL))
    return ~exists(live.correlate(StoredOutput))


def _insert(
    session: Session, table: type[StoredOutput | NeededOutput | Counter]
) -> postgresql.Insert | sqlite.Insert:
    """Both engines can insert or update in one statement; SQLAlchemy has it in their dialects only."""
    dialect = session.get_bind().dialect.name
    return postgresql.insert(table) if dialect == "postgresql" else sqlite.insert(table)
