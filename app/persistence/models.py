"""Queries over models that `app.persistence.owned` does not have."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.persistence.tables import Model


def find_by_digest(session: Session, *, owner: str, digest: str) -> Model | None:
    """The owner's model with this content, locked until the transaction ends."""
    return session.scalar(select(Model).where(Model.owner == owner, Model.digest == digest).with_for_update())
