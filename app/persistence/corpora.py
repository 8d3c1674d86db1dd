"""Queries over corpora that `app.persistence.owned` does not have."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence.tables import Corpus


def find_by_content(session: Session, *, owner: str, content_sha256: str) -> Corpus | None:
    """The owner's corpus with this content, locked until the transaction ends."""
    query = select(Corpus).where(Corpus.owner == owner, Corpus.content_sha256 == content_sha256)
    return session.scalar(query.with_for_update())
