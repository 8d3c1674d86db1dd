"""Queries over corpora that `app.persistence.owned` does not have."""

from collections.abc import Iterable

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
    return bool(expired_among(session, [corpus]))


def expired_among(session: Session, corpora: Iterable[Corpus]) -> set[str]:
    """Ids of those that have expired, as above."""
    ids = [corpus.id for corpus in corpora if corpus.expires_at is not None]
    if not ids:
        return set()
    late = session.scalars(select(Corpus.id).where(Corpus.id.in_(ids), Corpus.expires_at < now())).all()
    return {corpus_id for corpus_id in late if not amalgamations.uses_corpus(session, corpus_id)}
