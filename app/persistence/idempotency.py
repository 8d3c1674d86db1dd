"""Queries over the answers that are kept for repeated POSTs."""

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.persistence.tables import IdempotencyKey
from app.persistence.time import now

KEPT_SECONDS = 24 * 3600
"""After this long a key is as good as new."""


def find(session: Session, api_key_id: str, route: str, key: str) -> IdempotencyKey | None:
    """The answer under this key, unless it is too old."""
    query = select(IdempotencyKey).where(
        IdempotencyKey.api_key_id == api_key_id,
        IdempotencyKey.route == route,
        IdempotencyKey.key == key,
        IdempotencyKey.created_at > now(-KEPT_SECONDS),
    )
    return session.scalar(query)


def add(session: Session, row: IdempotencyKey) -> None:
    """Keep an answer; raises `IntegrityError` when another request under this key was quicker."""
    session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.api_key_id == row.api_key_id,
            IdempotencyKey.route == row.route,
            IdempotencyKey.key == row.key,
            IdempotencyKey.created_at <= now(-KEPT_SECONDS),
        )
    )
    session.add(row)
    session.flush()


def count_expired(session: Session) -> int:
    """How many answers are too old to be replayed."""
    query = select(func.count()).where(IdempotencyKey.created_at <= now(-KEPT_SECONDS))
    return session.scalar(query) or 0


def remove_expired(session: Session) -> None:
    """Forget them."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.created_at <= now(-KEPT_SECONDS)))
