"""Queries over the event log. Rows are inserted by `app.persistence.amalgamations`, with their number."""

from collections.abc import Sequence
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy import insert as sql_insert
from sqlalchemy.orm import Session

from app.persistence.tables import Event


def row(job_id: str, sequence: int, *, kind: str, message: str, data: dict[str, Any]) -> dict[str, Any]:
    """One event; the caller has taken the number under the job's row lock."""
    return {
        "amalgamation_id": job_id,
        "sequence": sequence,
        "type": kind,
        "message": message,
        "data": data,
    }


def insert_all(session: Session, rows: Sequence[dict[str, Any]]) -> None:
    """Append them, each made by `row`."""
    session.execute(_INSERT, rows)


_INSERT = sql_insert(cast("Table", Event.__table__))
"""Of the table, not of the class: there is no object to make, which would take as long again."""


def after(session: Session, job_id: str, sequence: int, *, limit: int) -> Sequence[Event]:
    """Up to `limit` events with a higher number, oldest first."""
    query = (
        select(Event)
        .where(Event.amalgamation_id == job_id, Event.sequence > sequence)
        .order_by(Event.sequence)
        .limit(limit)
    )
    return session.scalars(query).all()


def metric_points(session: Session, job_id: str) -> list[dict[str, Any]]:
    """The data of the training's metric events, one a step, in the order of the steps.

    An attempt that goes on from a checkpoint tells steps again: its points take the place of the old ones.
    """
    query = select(Event.data).where(Event.amalgamation_id == job_id, Event.type == "metric")
    points: list[dict[str, Any]] = []
    for point in session.scalars(query.order_by(Event.sequence)):
        while points and points[-1]["step"] >= point["step"]:
            points.pop()
        points.append(point)
    return points
