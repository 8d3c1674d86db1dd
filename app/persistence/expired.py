"""Queries over what stays of objects that have expired: enough to say so, for a while."""

from collections.abc import Collection

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.orm import Session

from app.persistence.owned import Owned
from app.persistence.tables import Corpus, ExpiredObject
from app.persistence.time import now

KEPT_SECONDS = 90 * 86_400
"""After this long nobody asks any more."""


def mark(session: Session, corpus: Corpus) -> None:
    """In the transaction that removes it."""
    session.add(ExpiredObject(id=corpus.id, owner=corpus.owner, expired_at=corpus.expires_at))


def is_marked(session: Session, object_id: str, *, owner: str) -> bool:
    """True when the owner had such an object, and it was removed because its time was over."""
    return bool(marked_among(session, {(owner, object_id)}))


def marked_among(session: Session, asked: Collection[Owned]) -> set[Owned]:
    """Those of them, as above."""
    if not asked:
        return set()
    mine = tuple_(ExpiredObject.owner, ExpiredObject.id).in_(sorted(asked))
    found = session.execute(select(ExpiredObject.owner, ExpiredObject.id).where(mine))
    return {(owner, object_id) for owner, object_id in found}


def count_old(session: Session) -> int:
    """How many marks have stood long enough."""
    query = select(func.count()).where(ExpiredObject.expired_at < now(-KEPT_SECONDS))
    return session.scalar(query) or 0


def remove_old(session: Session) -> None:
    """Forget them."""
    session.execute(delete(ExpiredObject).where(ExpiredObject.expired_at < now(-KEPT_SECONDS)))
