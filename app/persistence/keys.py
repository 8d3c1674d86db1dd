"""Queries over API keys. Rows stay after a revocation, so that a service once locked never opens again."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, exists, or_, select, update
from sqlalchemy.orm import Session

from app.persistence.tables import ApiKey
from app.persistence.time import now

USED_SECONDS = 60
"""How exact `last_used_at` is: one write a minute, however busy a key is."""


def find_valid(session: Session, digest: str) -> ApiKey | None:
    """The key with this digest, unless it is revoked."""
    return session.scalar(select(ApiKey).where(ApiKey.digest == digest, ApiKey.revoked_at.is_(None)))


def find(session: Session, key_id: str) -> ApiKey | None:
    """By its id."""
    return session.get(ApiKey, key_id)


def every(session: Session) -> Sequence[ApiKey]:
    """All, also revoked ones, the oldest first."""
    return session.scalars(select(ApiKey).order_by(ApiKey.id)).all()


def are_there_any(session: Session, *, valid: bool = False) -> bool:
    """True when a key was ever made; `valid`: when one of them still opens something."""
    query = select(ApiKey.id)
    return bool(session.scalar(select(exists(query.where(ApiKey.revoked_at.is_(None)) if valid else query))))


def is_use_untold(session: Session, key_id: str) -> bool:
    """True when `last_used_at` is older than it should be for a key in use."""
    return bool(session.scalar(select(exists().where(_untold(key_id)))))


def tell_use(session: Session, key_id: str) -> None:
    """Set `last_used_at`, unless another process just has."""
    session.execute(update(ApiKey).where(_untold(key_id)).values(last_used_at=now()))


def revoke(session: Session, key_id: str) -> None:
    """For ever. Repeating it does not change when it happened."""
    query = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))
    session.execute(query.values(revoked_at=now()))


def _untold(key_id: str) -> ColumnElement[bool]:
    late = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < now(-USED_SECONDS))
    return (ApiKey.id == key_id) & late
