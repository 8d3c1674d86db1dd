"""Webhooks as https://www.standardwebhooks.com has them: events, secrets, signatures, retries."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Iterable
from datetime import timedelta
from enum import StrEnum

from app.domain.status import Status

SECRET_PREFIX = "whsec_"  # noqa: S105  (the kind of a secret, not one)
SECRET_BYTES = 32
FIRST_DELAY_SECONDS = 5.0
LONGEST_DELAY_SECONDS = 3600.0


class WebhookEvent(StrEnum):
    """What a webhook can be told."""

    STARTED = "amalgamation.started"
    SUCCEEDED = "amalgamation.succeeded"
    FAILED = "amalgamation.failed"
    CANCELLED = "amalgamation.cancelled"


TEST_EVENT = "webhook.test"
"""Sent when the user asks for it, to any webhook."""

EVENT_OF: dict[Status, WebhookEvent] = {
    Status.RUNNING: WebhookEvent.STARTED,
    Status.SUCCEEDED: WebhookEvent.SUCCEEDED,
    Status.FAILED: WebhookEvent.FAILED,
    Status.CANCELLED: WebhookEvent.CANCELLED,
}


class DeliveryStatus(StrEnum):
    """Where a delivery is."""

    PENDING = "pending"
    """To be sent, for the first time or again, at `next_attempt_at`."""
    SUCCEEDED = "succeeded"
    """Answered with 2xx."""
    FAILED = "failed"
    """Given up."""


def new_secret() -> str:
    """A fresh secret: 256 random bits."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()


def signatures(keys: Iterable[str], message_id: str, timestamp: int, body: bytes) -> str:
    """The header `webhook-signature`: one signature a secret, so that a rotation breaks no receiver."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    return " ".join(f"v1,{_signature(key, signed)}" for key in keys)


def _signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    return base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def retry_delay(attempt: int, spread: float) -> timedelta:
    """How long to wait after failed attempt number `attempt` (from 1): 5 s, 15 s, 45 s, … an hour.

    `spread`: random, from 0 to 1; it moves the delay by up to a fifth, so that receivers that come back are
    not met by everything at once.
    """
    exact = min(FIRST_DELAY_SECONDS * 3.0 ** min(attempt - 1, 10), LONGEST_DELAY_SECONDS)
    return timedelta(seconds=exact * (0.8 + 0.4 * spread))
