"""Queries that the objects of owners share: one of them, and keyset pages."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix
from app.domain.revisions import parse_checkpoint
from app.persistence import checkpoints
from app.persistence.tables import Corpus, Model, Student, Webhook

Resource = TypeVar("Resource", Corpus, Model, Student, Webhook)
_TABLES: dict[str, type[Corpus | Model | Student]] = {
    Prefix.CORPUS: Corpus,
    Prefix.MODEL: Model,
    Prefix.STUDENT: Student,
}


def find(
    session: Session, table: type[Resource], object_id: str, *, owner: str | None, lock: bool = False
) -> Resource | None:
    """The object, or None when there is none, or it is another owner's. `owner=None`: any (workers).

    `lock`: who deletes an object locks it before asking whether a job needs it; see `hold`.
    """
    query = select(table).where(table.id == object_id)
    if owner is not None:
        query = query.where(table.owner == owner)
    return session.scalar(query.with_for_update() if lock else query)


def hold(session: Session, object_id: str, *, owner: str) -> bool:
    """Keep an object that a new job needs from being deleted until the transaction ends.

    False when it is gone already. On SQLite the write lock does the same for all rows.
    `stu-…@step-200` is a checkpoint.
    """
    if checkpoint := parse_checkpoint(object_id):
        return checkpoints.hold(session, *checkpoint, owner=owner)
    table = next(kind for prefix, kind in _TABLES.items() if object_id.startswith(prefix))
    identity: ColumnElement[bool] = (table.id == object_id) & (table.owner == owner)
    return session.scalar(select(table.id).where(identity).with_for_update(read=True)) is not None


def page(
    session: Session,
    table: type[Resource],
    owner: str,
    *,
    limit: int,
    after: str | None = None,
    descending: bool = True,
) -> Sequence[Resource]:
    """Up to `limit + 1` objects in id order (the one more tells that there is a next page)."""
    query = select(table).where(table.owner == owner)
    if after is not None:
        query = query.where(table.id < after if descending else table.id > after)
    order = table.id.desc() if descending else table.id.asc()
    return session.scalars(query.order_by(order).limit(limit + 1)).all()
