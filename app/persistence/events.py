"""Queries over the event log. Rows are inserted by `app.persistence.amalgamations`, with their number."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import insert as sql_insert
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence.tables import Event


def insert(
    session: Session, job_id: str, sequence: int, *, kind: str, message: str, data: dict[str, Any]
) -> None:
    """Append one; the caller has taken the number under the job's row lock."""
    session.execute(
        sql_insert(Event).values(
            amalgamation_id=job_id, sequence=sequence, type=kind, message=message, data=data
        )
    )


def after(session: Session, job_id: str, sequence: int, *, limit: int) -> Sequence[Event]:
    """Up to `limit` events with a higher number, oldest first."""
    query = (
        select(Event)
        .where(Event.amalgamation_id == job_id, Event.sequence > sequence)
        .order_by(Event.sequence)
        .limit(limit)
    )
    return session.scalars(query).all()
