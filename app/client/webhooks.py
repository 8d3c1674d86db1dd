"""`client.webhooks`: who is told what becomes of jobs."""

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from app.client.objects import Webhook, WebhookDelivery
from app.client.pages import every
from app.client.transport import Transport


class Webhooks:
    """Webhooks on the service."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str | None = None
    ) -> Webhook:
        """Send events of your jobs to an https URL.

        Args:
            url: on the Internet, unless the service allows private networks.
            events: `amalgamation.started`, `.succeeded`, `.failed`, `.cancelled`; by default all.
            description: for people.

        Returns:
            The webhook with its `secret`, which is shown this once.

        Raises:
            InvalidRequestError: the service does not send to this URL; the message says why.
        """
        body: dict[str, Any] = {"url": url, "description": description}
        if events is not None:
            body["events"] = list(events)
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._transport.fetch(Webhook, "POST", "/webhooks", json=body, headers=headers)

    def get(self, webhook_id: str) -> Webhook:
        """One webhook, without its secret."""
        return self._transport.fetch(Webhook, "GET", f"/webhooks/{webhook_id}")

    def list(self, *, order: str = "desc", page_size: int = 100) -> Iterator[Webhook]:
        """All webhooks, the newest first; pages are read as you go on."""
        return every(self._transport, Webhook, "/webhooks", {"order": order}, page_size)

    def delete(self, webhook_id: str) -> None:
        """Remove it and its log; what was not sent yet never is."""
        self._transport.send("DELETE", f"/webhooks/{webhook_id}")

    def rotate(self, webhook_id: str) -> Webhook:
        """Give it a new `secret`, shown this once; for a day messages are signed with both."""
        headers = {"Idempotency-Key": uuid.uuid4().hex}
        return self._transport.fetch(Webhook, "POST", f"/webhooks/{webhook_id}/rotate", headers=headers)

    def test(self, webhook_id: str) -> WebhookDelivery:
        """Send a test message; `deliveries` tells what came of it. Success enables a disabled webhook."""
        return self._transport.fetch(WebhookDelivery, "POST", f"/webhooks/{webhook_id}/test")

    def deliveries(
        self, webhook_id: str, *, status: str | None = None, order: str = "desc", page_size: int = 100
    ) -> Iterator[WebhookDelivery]:
        """What was sent, with every attempt; the newest first."""
        parameters = {"status": status, "order": order}
        return every(
            self._transport, WebhookDelivery, f"/webhooks/{webhook_id}/deliveries", parameters, page_size
        )
