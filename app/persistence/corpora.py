"""Queries over corpora that `app.persistence.owned` does not have."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence import amalgamations
from app.persistence.tables import Corpus
from app.persistence.time import now


def find_by_content(session: Session, *, owner: str, content_sha256: str) -> Corpus | None:
    """The owner's corpus with this content, locked until the transaction ends."""
    query = select(Corpus).where(Corpus.owner == owner, Corpus.content_sha256 == content_sha256)
    return session.scalar(query.with_for_update())


def has_expired(session: Session, corpus: Corpus) -> bool:
    """True when its time is over; never while a job that has not ended reads it."""
    if corpus.expires_at is None:
        return False
    late = session.scalar(select(Corpus.expires_at < now()).where(Corpus.id == corpus.id))
    return bool(late) and not amalgamations.uses_corpus(session, corpus.id)
