"""Routes of webhooks: who is told what becomes of jobs."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.responses import JSONResponse

from app.api.dependencies import BackendDep, CallerDep, OwnerDep
from app.api.parameters import After, IdempotencyKey, Limit, Order, show_page
from app.api.problem_codes import IDEMPOTENCY_KEY_REUSED, TOO_MANY_WEBHOOKS
from app.api.problems import problems
from app.api.response_headers import CREATED, NEXT_PAGE, REPLAYED
from app.api.schemas import Page
from app.api.schemas_webhooks import Webhook, WebhookDelivery, WebhookRequest, WebhookWithSecret
from app.domain.errors import InvalidRequestError, NotFoundError, RequestInFlightError
from app.domain.webhook import DeliveryStatus
from app.persistence import tables
from app.services import webhooks
from app.services.idempotency import Answer, Once

router = APIRouter(prefix="/webhooks", tags=["webhooks"])

WebhookId = Annotated[str, Path(description="`whk-…`")]
_CREATED: dict[int | str, dict[str, Any]] = {
    201: {
        "description": "Its secret is shown this once.",
        "headers": CREATED,
    }
}


@router.post(
    "",
    status_code=201,
    operation_id="create_webhook",
    summary="Be told what becomes of jobs",
    response_model=WebhookWithSecret,
    responses=_CREATED
    | problems(InvalidRequestError, IDEMPOTENCY_KEY_REUSED, RequestInFlightError, TOO_MANY_WEBHOOKS),
)
def create_webhook(
    body: WebhookRequest, backend: BackendDep, caller: CallerDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """Signed POSTs, as Standard Webhooks has them, for every job of the owner."""
    once = None
    if idempotency_key is not None:
        content = body.model_dump(mode="json")
        once = Once.of(caller.api_key_id, "POST /webhooks", idempotency_key, content)
    answer = webhooks.create(
        backend,
        caller.owner,
        url=body.url,
        events=body.events,
        description=body.description,
        once=once,
        render=_render,
    )
    return _with_secret(answer, Location=f"/webhooks/{answer.resource_id}")


def _with_secret(answer: Answer, **headers: str) -> Response:
    headers |= {"Cache-Control": "no-store"}
    if answer.replayed:
        headers["Idempotency-Replayed"] = "true"
    return JSONResponse(answer.content, answer.status, headers)


def _render(row: tables.Webhook) -> dict[str, Any]:
    return WebhookWithSecret.of(row).model_dump(mode="json")


@router.get(
    "",
    operation_id="list_webhooks",
    summary="List webhooks",
    responses={200: {"headers": NEXT_PAGE}},
)
def list_webhooks(
    *,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
) -> Page[Webhook]:
    """The newest first, unless asked otherwise."""
    rows = webhooks.page(backend, owner, limit=limit, after=after, descending=order == "desc")
    return show_page(
        request=request, response=response, rows=rows, limit=limit, shown=Webhook.of, page=Page[Webhook]
    )


@router.get(
    "/{webhook_id}",
    operation_id="get_webhook",
    summary="Show a webhook",
    responses=problems(NotFoundError),
)
def get_webhook(webhook_id: WebhookId, backend: BackendDep, owner: OwnerDep) -> Webhook:
    """Where it sends what, and whether it is enabled; never its secret."""
    return Webhook.of(webhooks.get(backend, owner, webhook_id))


@router.delete(
    "/{webhook_id}",
    status_code=204,
    operation_id="delete_webhook",
    summary="Delete a webhook",
    responses=problems(NotFoundError),
)
def delete_webhook(webhook_id: WebhookId, backend: BackendDep, owner: OwnerDep) -> None:
    """With its deliveries; what was not sent yet never is."""
    webhooks.delete(backend, owner, webhook_id)


@router.post(
    "/{webhook_id}/rotate",
    operation_id="rotate_webhook",
    summary="Give a webhook a new secret",
    response_model=WebhookWithSecret,
    responses=problems(NotFoundError, RequestInFlightError) | {200: {"headers": REPLAYED}},
)
def rotate_webhook(
    webhook_id: WebhookId, backend: BackendDep, caller: CallerDep, idempotency_key: IdempotencyKey = None
) -> Response:
    """For a day messages carry a signature of the old secret too, so that the receiver can change over."""
    once = None
    if idempotency_key is not None:
        route = f"POST /webhooks/{webhook_id}/rotate"
        once = Once.of(caller.api_key_id, route, idempotency_key, body=None)
    return _with_secret(webhooks.rotate(backend, caller.owner, webhook_id, once=once, render=_render))


@router.post(
    "/{webhook_id}/test",
    status_code=202,
    operation_id="test_webhook",
    summary="Send a test message",
    responses=problems(NotFoundError),
)
def test_webhook(webhook_id: WebhookId, backend: BackendDep, owner: OwnerDep) -> WebhookDelivery:
    """It is sent once, within seconds; the list of deliveries tells what came of it.

    A disabled webhook whose test is answered with 2xx is enabled again.
    """
    return WebhookDelivery.of(webhooks.test(backend, owner, webhook_id))


@router.get(
    "/{webhook_id}/deliveries",
    operation_id="list_webhook_deliveries",
    summary="What was sent to a webhook",
    responses=problems(NotFoundError) | {200: {"headers": NEXT_PAGE}},
)
def list_webhook_deliveries(
    *,
    webhook_id: WebhookId,
    request: Request,
    response: Response,
    backend: BackendDep,
    owner: OwnerDep,
    limit: Limit = 20,
    after: After = None,
    order: Order = "desc",
    status: Annotated[DeliveryStatus | None, Query(description="Only deliveries in this status.")] = None,
) -> Page[WebhookDelivery]:
    """Every message with every attempt: when, the answer, the error, and when it is tried again."""
    rows = webhooks.log(
        backend, owner, webhook_id, limit=limit, after=after, descending=order == "desc", status=status
    )
    return show_page(
        request=request,
        response=response,
        rows=rows,
        limit=limit,
        shown=WebhookDelivery.of,
        page=Page[WebhookDelivery],
    )
