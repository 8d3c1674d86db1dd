"""Queries over webhooks that `app.persistence.owned` does not have."""

from collections.abc import Sequence

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from app.persistence.tables import IdempotencyKey, Webhook
from app.persistence.time import now

BOTH_SECRETS_SECONDS = 24 * 3600
"""How long the old secret signs too after a rotation."""


def count(session: Session, owner: str) -> int:
    """How many the owner has."""
    return session.scalar(select(func.count()).where(Webhook.owner == owner)) or 0


def enabled_of(session: Session, owner: str) -> Sequence[Webhook]:
    """Those that are told, kept from being deleted until the transaction ends: deliveries refer to them."""
    query = select(Webhook).where(Webhook.owner == owner, Webhook.disabled_at.is_(None)).order_by(Webhook.id)
    return session.scalars(query.with_for_update(read=True, key_share=True)).all()


def rotate(session: Session, webhook: Webhook, secret: str) -> None:
    """Sign with the new secret from now on, and for a day with the old one too."""
    webhook.previous_secret = webhook.secret
    webhook.previous_secret_until = session.scalar(select(now(BOTH_SECRETS_SECONDS)))
    webhook.secret = secret
    forget_answers(session, webhook.id)
    session.flush()


def forget_answers(session: Session, webhook_id: str) -> None:
    """Those kept under an `Idempotency-Key`: they hold a secret of before."""
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.resource_id == webhook_id))


def disable(session: Session, webhook_id: str, reason: str) -> None:
    """Send nothing more; the reason is shown to the owner."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_(None))
        .values(disabled_at=now(), disabled_reason=reason),
        execution_options={"synchronize_session": False},
    )


def enable(session: Session, webhook_id: str) -> None:
    """Send again."""
    session.execute(
        update(Webhook)
        .where(Webhook.id == webhook_id, Webhook.disabled_at.is_not(None))
        .values(disabled_at=None, disabled_reason=None),
        execution_options={"synchronize_session": False},
    )
