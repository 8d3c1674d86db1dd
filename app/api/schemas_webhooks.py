"""Webhooks as the contract shows them: the objects of the API, and the messages that receivers get."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from app.api.schemas import Failure
from app.domain.status import Status
from app.domain.webhook import DeliveryStatus, WebhookEvent
from app.persistence import tables
from app.services.webhooks import MAX_URL_CHARS

ALL_EVENTS = list(WebhookEvent)


class WebhookRequest(BaseModel):
    """Where to send what."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(
        min_length=1,
        max_length=MAX_URL_CHARS,
        description="`https://…`, on the Internet: in a private network only where the service allows it.",
    )
    events: list[WebhookEvent] = Field(
        ALL_EVENTS, min_length=1, max_length=len(ALL_EVENTS), description="By default all."
    )
    description: str | None = Field(None, max_length=500, pattern=r"^[^\x00]*$", description="For people.")


class Webhook(BaseModel):
    """Where an owner is told what becomes of jobs."""

    id: str
    url: str
    events: list[WebhookEvent]
    description: str | None
    enabled: bool = Field(description="False: nothing is sent until a test has been answered with 2xx.")
    disabled_at: datetime | None
    disabled_reason: str | None
    previous_secret_until: datetime | None = Field(
        description="Until then the secret from before the last rotation signs too."
    )
    created_at: datetime
    expires_at: datetime | None = Field(description="When it may be removed; null: it is kept.")

    @classmethod
    def of(cls, row: tables.Webhook) -> Self:
        """Without its secret."""
        facts = {name: getattr(row, name) for name in Webhook.model_fields if hasattr(row, name)}
        return cls(**facts, enabled=row.disabled_at is None)


class WebhookWithSecret(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str = Field("", description="`whsec_…`: verifies the signatures. Keep it; it is not shown again.")

    @classmethod
    def of(cls, row: tables.Webhook) -> Self:
        """With its secret."""
        return super().of(row).model_copy(update={"secret": row.secret})


class DeliveryAttempt(BaseModel):
    """What came of one attempt to send."""

    at: datetime
    status_code: int | None = Field(description="Of the receiver's answer; null: there was none.")
    error: str | None = Field(description="Null: it was answered with 2xx.")
    duration_seconds: float
    response: str | None = Field(description="The first 1,024 bytes of the answer.")


class WebhookDelivery(BaseModel):
    """One message to one webhook, and every attempt to send it."""

    id: str = Field(description="The header `webhook-id`, the same in every attempt.")
    webhook_id: str
    amalgamation_id: str | None = Field(description="The job that it tells of; null for a test.")
    event: str
    status: DeliveryStatus
    attempts: list[DeliveryAttempt]
    next_attempt_at: datetime | None = Field(description="Null: there will be no more.")
    created_at: datetime
    finished_at: datetime | None

    @classmethod
    def of(cls, row: tables.WebhookDelivery) -> Self:
        """As the contract shows it."""
        return cls.model_validate(row, from_attributes=True)


class WebhookMessageData(BaseModel):
    """The job, as it was when this happened. `GET /amalgamations/{id}` has the rest."""

    id: str
    name: str | None
    status: Status
    attempt: int
    student_id: str | None = Field(description="Null, too, where the method trains no student.")
    failure: Failure | None
    metadata: dict[str, Any]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class WebhookMessage(BaseModel):
    """The body of a message, signed as Standard Webhooks says."""

    type: WebhookEvent
    timestamp: datetime = Field(description="When it happened; attempts may come later.")
    data: WebhookMessageData


class WebhookTestData(BaseModel):
    """Which webhook is tested."""

    webhook_id: str


class WebhookTestMessage(BaseModel):
    """The body of a test message."""

    type: Literal["webhook.test"]
    timestamp: datetime
    data: WebhookTestData
