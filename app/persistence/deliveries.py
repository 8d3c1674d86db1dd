"""Queries over deliveries: the log that users read, and the queue that processes send from.

A process claims a delivery for a while, by compare-and-set. If it dies, the claim runs out and another one
sends it again, under the same id: at least once. Every claim has a number, so that a late process overwrites
nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import Session

from app.domain.webhook import DeliveryStatus
from app.persistence.tables import Webhook, WebhookDelivery
from app.persistence.time import now

_IS_DUE = (WebhookDelivery.status == DeliveryStatus.PENDING, WebhookDelivery.next_attempt_at <= now())


@dataclass(frozen=True)
class Claim:
    """A delivery that this process may send, and what it needs for that. Made when the claim is."""

    delivery: WebhookDelivery
    webhook: Webhook
    at: datetime
    """By the database's clock."""

    @property
    def secrets(self) -> list[str]:
        """All that sign now, the newest first."""
        hook = self.webhook
        is_kept = hook.previous_secret_until is not None and hook.previous_secret_until > self.at
        return [hook.secret, hook.previous_secret] if hook.previous_secret and is_kept else [hook.secret]


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt, as the log shows it."""

    at: str
    status_code: int | None
    error: str | None
    """Empty: it was answered with 2xx."""
    duration_seconds: float
    response: str | None
    """The first characters of the answer."""


def is_any_due(session: Session) -> bool:
    """A look that locks nothing."""
    return session.scalar(select(WebhookDelivery.id).where(*_IS_DUE).limit(1)) is not None


def claim(
    session: Session, *, limit: int, per_webhook: int, busy: Mapping[str, int], lease_seconds: float
) -> list[Claim]:
    """Take up to `limit` deliveries that are due, in turns from all webhooks.

    Args:
        session: of `Database.write()`.
        limit: at most that many.
        per_webhook: at most that many of one webhook.
        busy: deliveries of a webhook that this process sends already; they count.
        lease_seconds: after which somebody else may send it.
    """
    claims = []
    for delivery_id in sorted(_due(session, limit, per_webhook, busy)):  # sorted: claimers never deadlock
        taken = session.scalar(
            update(WebhookDelivery)
            .where(WebhookDelivery.id == delivery_id, *_IS_DUE)
            .values(attempt=WebhookDelivery.attempt + 1, next_attempt_at=now(lease_seconds))
            .returning(WebhookDelivery.id),
            execution_options={"synchronize_session": False},
        )
        if taken is not None:
            claims.append(_claimed(session, taken))
    return claims


def lock_all(session: Session, webhook_id: str) -> None:
    """In the order of `claim`, so that whoever goes on to delete them never deadlocks with a claimer."""
    of_webhook = select(WebhookDelivery.id).where(WebhookDelivery.webhook_id == webhook_id)
    session.execute(of_webhook.order_by(WebhookDelivery.id).with_for_update())


def _due(session: Session, limit: int, per_webhook: int, busy: Mapping[str, int]) -> Sequence[str]:
    webhook_id = WebhookDelivery.webhook_id
    turn = func.row_number().over(partition_by=webhook_id, order_by=WebhookDelivery.next_attempt_at)
    ranked = select(WebhookDelivery.id, webhook_id, turn.label("turn")).where(*_IS_DUE).subquery()
    query = select(ranked.c.id, ranked.c.webhook_id, ranked.c.turn).where(ranked.c.turn <= per_webhook)
    # What is under way counts as a turn: a webhook with nothing under way comes first, however new it is.
    turns = sorted((row.turn + busy.get(row.webhook_id, 0), row.id) for row in session.execute(query))
    return [delivery_id for turn, delivery_id in turns if turn <= per_webhook][:limit]


def _claimed(session: Session, delivery_id: str) -> Claim:
    row = session.execute(
        select(WebhookDelivery, Webhook, now())
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.id == delivery_id)
    ).one()
    return Claim(row[0], row[1], row[2])


def record(
    session: Session, claim: Claim, outcome: Outcome, status: DeliveryStatus, retry_in: timedelta | None
) -> bool:
    """Write down what came of a claim; False when it ran out and another process has taken over."""
    mine = claim.delivery
    changed = session.execute(
        update(WebhookDelivery)
        .where(
            WebhookDelivery.id == mine.id,
            WebhookDelivery.attempt == mine.attempt,
            WebhookDelivery.status == DeliveryStatus.PENDING,
        )
        .values(
            status=status,
            attempts=[*mine.attempts, asdict(outcome)],
            next_attempt_at=None if retry_in is None else now(retry_in.total_seconds()),
            finished_at=now() if retry_in is None else None,
        )
        .returning(WebhookDelivery.id),
        execution_options={"synchronize_session": False},
    )
    return changed.one_or_none() is not None


def page(
    session: Session, webhook_id: str, *, limit: int, after: str | None, descending: bool, status: str | None
) -> Sequence[WebhookDelivery]:
    """Up to `limit + 1` deliveries of a webhook in id order."""
    query = select(WebhookDelivery).where(WebhookDelivery.webhook_id == webhook_id)
    if status is not None:
        query = query.where(WebhookDelivery.status == status)
    if after is not None:
        query = query.where(WebhookDelivery.id < after if descending else WebhookDelivery.id > after)
    order = WebhookDelivery.id.desc() if descending else WebhookDelivery.id.asc()
    return session.scalars(query.order_by(order).limit(limit + 1)).all()


def count_old(session: Session, kept_seconds: float) -> int:
    """How many entries of the log have had their time."""
    return session.scalar(select(func.count()).select_from(WebhookDelivery).where(*_old(kept_seconds))) or 0


def remove_old(session: Session, kept_seconds: float) -> None:
    """Forget them."""
    session.execute(delete(WebhookDelivery).where(*_old(kept_seconds)))


def _old(kept_seconds: float) -> tuple[ColumnElement[bool], ...]:
    return (
        WebhookDelivery.status != DeliveryStatus.PENDING,
        WebhookDelivery.finished_at < now(-kept_seconds),
    )
