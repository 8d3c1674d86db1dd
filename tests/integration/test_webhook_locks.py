"""A webhook that is deleted while its deliveries are claimed: found by generated requests."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.orm import Session

from app.domain.identifiers import Prefix, new_id
from app.domain.webhook import DeliveryStatus
from app.persistence.tables import WebhookDelivery
from app.services import webhooks
from app.services.backend import Backend
from tests.api_objects import OWNER, add_webhook
from tests.servers import wait_until


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_a_delete_and_a_claimer_never_wait_for_each_other(backend: Backend) -> None:
    webhook = add_webhook(backend)
    older, newer = sorted(new_id(Prefix.DELIVERY) for _ in range(2))
    for delivery in (newer, older):  # so that they lie the other way round in the table
        with backend.database.write() as session:
            row = {
                "id": delivery,
                "webhook_id": webhook.id,
                "event": "webhook.test",
                "body": "{}",
                "attempts": [],
            }
            session.add(WebhookDelivery(**row, status=DeliveryStatus.PENDING))

    def is_waiting() -> bool:
        with backend.database.read() as session:
            waits = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            return bool(session.scalar(waits))

    def claim(session: Session, delivery: str) -> None:
        change = update(WebhookDelivery).where(WebhookDelivery.id == delivery)
        session.execute(change.values(attempt=1))

    with ThreadPoolExecutor(1) as threads:
        with backend.database.write() as session:
            claim(session, older)
            deleting = threads.submit(webhooks.delete, backend, OWNER, webhook.id)
            wait_until(is_waiting, "the delete waits for the claimer")
            claim(session, newer)
        deleting.result(60)
    with backend.database.read() as session:
        assert session.scalar(select(func.count(WebhookDelivery.id))) == 0
