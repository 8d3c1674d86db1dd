"""What muka sends to receivers, for the section `webhooks` of the OpenAPI document."""

from typing import Annotated, Any

from fastapi import APIRouter, Header

from app.api.schemas_webhooks import WebhookMessage, WebhookTestMessage
from app.domain.webhook import TEST_EVENT, WebhookEvent

messages = APIRouter()

_ANSWERS: dict[int | str, dict[str, Any]] = {
    410: {"description": "The receiver wants no more: the webhook is disabled."},
    "default": {"description": "Anything but 2xx: sent again under the same id, for 8 hours."},
}
MessageId = Annotated[str, Header(alias="webhook-id", description="The same in every attempt: `dlv-…`")]
Timestamp = Annotated[int, Header(alias="webhook-timestamp", description="Of the attempt, in Unix seconds.")]
Signature = Annotated[
    str,
    Header(
        alias="webhook-signature",
        description="`v1,` and the base64 of HMAC-SHA256 over `id.timestamp.body` with the secret; for a "
        "day after a rotation a second one, after a space, with the old secret.",
    ),
]


def _told(
    body: WebhookMessage, webhook_id: MessageId, webhook_timestamp: Timestamp, webhook_signature: Signature
) -> None:
    """Messages may come twice (compare `webhook-id`) and out of order (compare `timestamp`)."""


def _tested(
    body: WebhookTestMessage,
    webhook_id: MessageId,
    webhook_timestamp: Timestamp,
    webhook_signature: Signature,
) -> None:
    """Answer it like any other message."""


for _event in WebhookEvent:
    messages.add_api_route(
        _event.value,
        _told,
        methods=["POST"],
        status_code=204,
        tags=["webhooks"],
        operation_id=f"told_{_event.value.replace('.', '_')}",
        summary=f"A job of the webhook's owner: {_event.value.partition('.')[2]}",
        responses=_ANSWERS,
    )
messages.add_api_route(
    TEST_EVENT,
    _tested,
    methods=["POST"],
    status_code=204,
    tags=["webhooks"],
    operation_id="told_webhook_test",
    summary="Somebody tests the webhook",
    responses=_ANSWERS,
)
