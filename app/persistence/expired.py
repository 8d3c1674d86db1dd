"""Queries over what stays of objects that have expired: enough to say so, for a while."""

from sqlalchemy import delete, exists, func, select
from sqlalchemy.orm import Session

from app.persistence.tables import Corpus, ExpiredObject
from app.persistence.time import now

KEPT_SECONDS = 90 * 86_400
"""After this long nobody asks any more."""


def mark(session: Session, corpus: Corpus) -> None:
    """In the transaction that removes it."""
    session.add(ExpiredObject(id=corpus.id, owner=corpus.owner, expired_at=corpus.expires_at))


def is_marked(session: Session, object_id: str, *, owner: str) -> bool:
    """True when the owner had such an object, and it was removed because its time was over."""
    mine = (ExpiredObject.id == object_id) & (ExpiredObject.owner == owner)
    return bool(session.scalar(select(exists().where(mine))))


def count_old(session: Session) -> int:
    """How many marks have stood long enough."""
    query = select(func.count()).where(ExpiredObject.expired_at < now(-KEPT_SECONDS))
    return session.scalar(query) or 0


def remove_old(session: Session) -> None:
    """Forget them."""
    session.execute(delete(ExpiredObject).where(ExpiredObject.expired_at < now(-KEPT_SECONDS)))
