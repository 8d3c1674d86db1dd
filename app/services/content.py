"""Objects that are their content: the same content twice is one object of its owner."""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.persistence.tables import Corpus, Model
from app.services.backend import Backend

Content = TypeVar("Content", Corpus, Model)
Keep: TypeAlias = Callable[[Session, tuple[Content, bool]], None]
"""Writes what else belongs into the transaction; given the object, and whether it is new."""


def known(
    backend: Backend,
    find: Callable[[Session], Content | None],
    *,
    expiry: object,
    keep: Keep[Content],
) -> Content | None:
    """The object with this content, if there is one; kept from now on as long as a new one."""
    with backend.database.write() as session:
        row = find(session)
        if row is not None:
            row.expires_at = expiry  # type: ignore[assignment]  # an expression of the database's clock
            session.flush()
            session.refresh(row)
            keep(session, (row, False))
        return row


def insert(
    backend: Backend,
    row: Content,
    key: str,
    find: Callable[[Session], Content | None],
    *,
    expiry: object,
    keep: Keep[Content],
) -> tuple[Content, bool]:
    """Insert the row of files that are stored under `key` already.

    Files come first, so that a row always has its files; when another request was quicker with the same
    content, ours are removed. Any other error leaves them: the row may have been committed all the same.

    Returns:
        The object, and whether it is new.
    """
    row.expires_at = expiry  # type: ignore[assignment]
    try:
        with backend.database.write() as session:
            session.add(row)
            session.flush()
            session.refresh(row)
            keep(session, (row, True))
            return row, True
    except IntegrityError:
        backend.store.delete(key)
        winner = known(backend, find, expiry=expiry, keep=keep)
        if winner is None:
            raise
        return winner, False


def keep_nothing(_session: Session, _made: tuple[Corpus, bool] | tuple[Model, bool]) -> None:
    """For objects that nobody asked for by a key."""
