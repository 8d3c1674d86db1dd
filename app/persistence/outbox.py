"""The outbox of webhooks: what is to be told, written in the transaction of what has happened.

So no event is lost between commit and send, whoever dies; an event whose transaction is rolled back is not
told. `app.persistence.deliveries` has what the sending processes do with it.
"""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix, new_id
from app.domain.status import TERMINAL, Status
from app.domain.webhook import EVENT_OF, TEST_EVENT, DeliveryStatus
from app.persistence import webhooks
from app.persistence.tables import Amalgamation, Webhook, WebhookDelivery
from app.persistence.time import now


def announce(session: Session, job: Amalgamation, status: Status) -> None:
    """Put the job's new status into the outbox, once for each webhook of its owner that wants it."""
    event = EVENT_OF.get(status)
    if event is None or (status == Status.RUNNING and not _is_first_start(job.transitions)):
        return
    wanting = [each for each in webhooks.enabled_of(session, job.owner) if event in each.events]
    if not wanting:
        return
    at = _clock(session)
    body = _body(event, at, _facts(job))
    for webhook in wanting:
        session.add(_delivery(webhook.id, event, body, at, job.id))


def test(session: Session, webhook: Webhook) -> WebhookDelivery:
    """Put a test message into the outbox."""
    at = _clock(session)
    body = _body(TEST_EVENT, at, {"webhook_id": webhook.id})
    delivery = _delivery(webhook.id, TEST_EVENT, body, at, None)
    session.add(delivery)
    session.flush()
    return delivery


def _is_first_start(transitions: Sequence[dict[str, Any]]) -> bool:
    """False for another attempt after a loss or a stop; true for a job that was resumed after its end."""
    starts = 0
    for transition in reversed(transitions):
        if transition["status"] in TERMINAL:
            break
        starts += transition["status"] == Status.RUNNING
    return starts == 1


def _facts(job: Amalgamation) -> dict[str, Any]:
    """Enough to act on. The whole job is at the API, for those who may see it."""
    return {
        "id": job.id,
        "name": job.name,
        "status": job.status,
        "attempt": job.attempt,
        "student_id": job.student_id,
        "failure": job.failure,
        "metadata": job.user_metadata,
        "created_at": _text(job.created_at),
        "started_at": _text(job.started_at),
        "finished_at": _text(job.finished_at),
    }


def _body(event: str, at: datetime, data: dict[str, Any]) -> str:
    return json.dumps({"type": event, "timestamp": _text(at), "data": data}, separators=(",", ":"))


def _delivery(webhook_id: str, event: str, body: str, at: datetime, job_id: str | None) -> WebhookDelivery:
    return WebhookDelivery(
        id=new_id(Prefix.DELIVERY),
        webhook_id=webhook_id,
        amalgamation_id=job_id,
        event=event,
        body=body,
        status=DeliveryStatus.PENDING,
        attempt=0,
        attempts=[],
        next_attempt_at=at,
        created_at=at,
    )


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")


def _clock(session: Session) -> datetime:
    at: datetime = session.execute(select(now())).scalar_one()
    return at
