"""Queries over the worker processes: who is there, and what each one does.

A worker shows itself every so often; what it does is not written a second time, for the leases tell it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, SQLColumnExpression, delete, func, literal, select, update
from sqlalchemy.orm import Session

from app.domain.shards import ShardStatus
from app.persistence.amalgamations import LEASED
from app.persistence.tables import Amalgamation, Shard, Worker
from app.persistence.time import now

FORGOTTEN_SECONDS = 86_400
"""A worker that was silent for this long is no news any more."""


@dataclass(frozen=True)
class Seen:
    """A worker, as its row and its leases tell."""

    name: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    silent_seconds: float
    """Since it showed itself, by the database's clock."""
    job_id: str | None
    """The job that it holds, or with whose scoring it helps."""


def show(session: Session, worker_id: str, *, name: str, host: str, pid: int, version: str) -> None:
    """The worker is there now."""
    seen = update(Worker).where(Worker.id == worker_id).values(seen_at=now()).returning(Worker.id)
    if session.scalar(seen) is None:
        session.add(Worker(id=worker_id, name=name, host=host, pid=pid, version=version))


def remove(session: Session, worker_id: str) -> None:
    """It has ended."""
    session.execute(delete(Worker).where(Worker.id == worker_id))


def remove_named(session: Session, name: str) -> None:
    """Its supervisor saw it die."""
    session.execute(delete(Worker).where(Worker.name == name))


def is_busy(session: Session, name: str) -> bool:
    """Whether it holds a lease."""
    return session.scalar(select(_job_of(literal(name)))) is not None


def every(session: Session) -> Sequence[Seen]:
    """All that have a row, those that are silent too, by name."""
    columns = (Worker.name, Worker.host, Worker.pid, Worker.version, Worker.started_at, Worker.seen_at)
    query = select(*columns, now(), _job_of(Worker.name)).order_by(Worker.name, Worker.id)
    return [
        Seen(name, host, pid, version, started, seen, max(0.0, (current - seen).total_seconds()), job_id)
        for name, host, pid, version, started, seen, current, job_id in session.execute(query)
    ]


def count(session: Session, alive_seconds: float) -> dict[str, int]:
    """Workers that showed themselves within these seconds: how many are `idle`, how many `busy`."""
    alive = Worker.seen_at >= now(-alive_seconds)
    query = select(func.count(), func.count(_job_of(Worker.name))).where(alive)
    there, busy = session.execute(query).one()
    return {"idle": there - busy, "busy": busy}


def count_forgotten(session: Session) -> int:
    """How many rows `remove_forgotten` would remove."""
    return session.scalar(select(func.count()).select_from(Worker).where(_is_forgotten())) or 0


def remove_forgotten(session: Session) -> None:
    """Rows of workers that were killed and never came back under their id."""
    session.execute(delete(Worker).where(_is_forgotten()))


def _is_forgotten() -> ColumnElement[bool]:
    return Worker.seen_at < now(-FORGOTTEN_SECONDS)


def _job_of(name: SQLColumnExpression[str]) -> ColumnElement[str | None]:
    """The job that the worker of this name holds, or helps with."""
    held = select(func.min(Amalgamation.id)).where(
        Amalgamation.status.in_(LEASED), Amalgamation.lease_owner == name
    )
    helped = select(func.min(Shard.amalgamation_id)).where(
        Shard.worker == name, Shard.status == ShardStatus.TAKEN, Shard.lease_until >= now()
    )
    return func.coalesce(held.correlate(Worker).scalar_subquery(), helped.correlate(Worker).scalar_subquery())
