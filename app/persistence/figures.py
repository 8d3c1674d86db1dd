"""What the whole database tells for `GET /metrics`, over all owners: every process gives the same answer."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.domain.status import Status
from app.domain.webhook import DeliveryStatus
from app.persistence import stored_outputs, workers
from app.persistence.amalgamations import LEASED
from app.persistence.losses import LOST_ATTEMPTS
from app.persistence.tables import Amalgamation, WebhookDelivery
from app.persistence.time import now


@dataclass(frozen=True)
class Figures:
    """Counts at one moment."""

    jobs: dict[str, int]
    """By status; every status is there."""
    stages: dict[str, int]
    """Jobs that a worker holds, by stage."""
    oldest_queued_seconds: float
    """Since the oldest of the queued jobs was created; 0 when none is queued."""
    lost_attempts: int
    """Whose worker died; only grows."""
    workers: dict[str, int]
    """Those that are alive, by what they do: `idle`, `busy`."""
    deliveries: dict[str, int]
    """Webhook deliveries in the log by status; every status is there."""


def figures(session: Session, *, alive_seconds: float) -> Figures:
    """As of now. A worker is alive when it showed itself within `alive_seconds`."""
    status, sent = Amalgamation.status, WebhookDelivery.status
    jobs = {row[0]: row[1] for row in session.execute(select(status, func.count()).group_by(status))}
    deliveries = {row[0]: row[1] for row in session.execute(select(sent, func.count()).group_by(sent))}
    return Figures(
        jobs={each: jobs.get(each, 0) for each in Status},
        stages=_stages(session),
        oldest_queued_seconds=_oldest_queued(session),
        lost_attempts=stored_outputs.counted(session, LOST_ATTEMPTS),
        workers=workers.count(session, alive_seconds),
        deliveries={each: deliveries.get(each, 0) for each in DeliveryStatus},
    )


def _stages(session: Session) -> dict[str, int]:
    stage = func.coalesce(Amalgamation.stage, "none")
    query = select(stage, func.count()).where(Amalgamation.status.in_(LEASED)).group_by(stage)
    return {row[0]: row[1] for row in session.execute(query)}


def _oldest_queued(session: Session) -> float:
    """Ids sort by creation."""
    query = select(Amalgamation.created_at, now()).where(Amalgamation.status == Status.QUEUED)
    row = session.execute(query.order_by(Amalgamation.id).limit(1)).one_or_none()
    return 0.0 if row is None else max(0.0, (row[1] - row[0]).total_seconds())
