"""Queries that corpora, models and students share: one object of an owner, and keyset pages of them."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence.tables import Corpus, Model, Student

Resource = TypeVar("Resource", Corpus, Model, Student)


def find(session: Session, table: type[Resource], object_id: str, *, owner: str | None) -> Resource | None:
    """The object, or None when there is none, or it is another owner's. `owner=None`: any (workers)."""
    query = select(table).where(table.id == object_id)
    if owner is not None:
        query = query.where(table.owner == owner)
    return session.scalar(query)


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
