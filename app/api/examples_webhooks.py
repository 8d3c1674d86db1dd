"""Examples of webhooks and their messages."""

from typing import Any

REQUEST: dict[str, Any] = {
    "url": "https://example.com/muka",
    "events": ["amalgamation.succeeded", "amalgamation.failed"],
    "description": "tells the support team's channel",
}

WEBHOOK: dict[str, Any] = {
    "id": "whk-01990b6d2f4c7aa0b1c2d3e4f5a6b7e0",
    **REQUEST,
    "enabled": True,
    "disabled_at": None,
    "disabled_reason": None,
    "previous_secret_until": None,
    "created_at": "2026-11-23T06:00:00Z",
    "expires_at": None,
}

WITH_SECRET: dict[str, Any] = {**WEBHOOK, "secret": "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"}  # an example

JOB_ID = "amg-01990b6d2f4c7aa0b1c2d3e4f5a6b7d0"

MESSAGE: dict[str, Any] = {
    "type": "amalgamation.succeeded",
    "timestamp": "2026-11-23T06:05:00.120000Z",
    "data": {
        "id": JOB_ID,
        "name": "support-router",
        "status": "succeeded",
        "attempt": 1,
        "student_id": "stu-01990b6d2f4c7aa0b1c2d3e4f5a6b7d0",
        "failure": None,
        "metadata": {"team": "support"},
        "created_at": "2026-11-23T06:00:00Z",
        "started_at": "2026-11-23T06:00:01Z",
        "finished_at": "2026-11-23T06:05:00Z",
    },
}

TEST_MESSAGE: dict[str, Any] = {
    "type": "webhook.test",
    "timestamp": "2026-11-23T06:05:00.120000Z",
    "data": {"webhook_id": WEBHOOK["id"]},
}

DELIVERY: dict[str, Any] = {
    "id": "dlv-01990b6d2f4c7aa0b1c2d3e4f5a6b7f0",
    "webhook_id": WEBHOOK["id"],
    "amalgamation_id": JOB_ID,
    "event": "amalgamation.succeeded",
    "status": "pending",
    "attempts": [
        {
            "at": "2026-11-23T06:05:00Z",
            "status_code": 503,
            "error": "the receiver answered 503, which is not 2xx",
            "duration_seconds": 0.118,
            "response": "upstream is restarting",
        }
    ],
    "next_attempt_at": "2026-11-23T06:05:05Z",
    "created_at": "2026-11-23T06:05:00Z",
    "finished_at": None,
}

WEBHOOK_EXAMPLES: dict[str, list[dict[str, Any]]] = {
    "WebhookRequest": [REQUEST, {"url": REQUEST["url"]}],
    "Webhook": [WEBHOOK],
    "WebhookWithSecret": [WITH_SECRET],
    "WebhookDelivery": [DELIVERY],
    "WebhookMessage": [MESSAGE],
    "WebhookTestMessage": [TEST_MESSAGE],
}
"""By the name of the schema."""
