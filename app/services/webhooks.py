"""Use cases over webhooks: create, look, list, delete, rotate, test, and the log of deliveries."""

from collections.abc import Callable, Sequence
from typing import Any

import httpx
from sqlalchemy.orm import Session

from app.domain.errors import ConflictError, Fault, InvalidRequestError, NotFoundError
from app.domain.identifiers import Prefix, has_prefix, new_id
from app.domain.webhook import DeliveryStatus, WebhookEvent, new_secret
from app.outbound.connection import AddressRefusedError, Guard
from app.persistence import deliveries, outbox, owned, webhooks
from app.persistence.tables import Webhook, WebhookDelivery
from app.services.backend import Backend
from app.services.idempotency import Answer, Once, keeping

MAX_WEBHOOKS = 20
"""Of one owner."""
MAX_URL_CHARS = 2000
PORTS = {"http": 80, "https": 443}


Render = Callable[[Webhook], dict[str, Any]]
"""Makes the answer of `create` from the fresh row."""


def create(
    backend: Backend,
    owner: str,
    *,
    url: str,
    events: Sequence[WebhookEvent],
    description: str | None,
    once: Once | None,
    render: Render,
) -> Answer:
    """A new webhook. Its secret is in the answer, and in that to a repeated request until it is rotated.

    Raises:
        InvalidRequestError: the URL is none that muka sends to.
        ConflictError: the owner has as many as one may have.
        RequestInFlightError: an earlier request under the key has no answer yet.
    """

    def run() -> Answer:
        webhook = Webhook(
            id=new_id(Prefix.WEBHOOK),
            owner=owner,
            url=_checked(backend, url),
            description=description,
            events=sorted(set(events)),
            secret=new_secret(),
        )
        with backend.database.write() as session:
            _refuse_one_too_many(session, owner)
            session.add(webhook)
            session.flush()
            return keeping(once, session, Answer(webhook.id, render(webhook), 201))

    return backend.claims.carry_out(backend.database, once, run)


def _refuse_one_too_many(session: Session, owner: str) -> None:
    if webhooks.count(session, owner) >= MAX_WEBHOOKS:
        detail = f"you have {MAX_WEBHOOKS} webhooks, the most that one may have; delete one you do not need"
        raise ConflictError(detail, code="too_many_webhooks")


def get(backend: Backend, owner: str, webhook_id: str) -> Webhook:
    """One webhook.

    Raises:
        NotFoundError: there is none, or it is another owner's.
    """
    with backend.database.read() as session:
        return _find(session, owner, webhook_id)


def page(
    backend: Backend, owner: str, *, limit: int, after: str | None, descending: bool
) -> Sequence[Webhook]:
    """Up to `limit + 1` webhooks; the one more tells that there is a next page."""
    with backend.database.read() as session:
        return owned.page(session, Webhook, owner, limit=limit, after=after, descending=descending)


def delete(backend: Backend, owner: str, webhook_id: str) -> None:
    """Remove a webhook and its log; what was not sent yet never is.

    Raises:
        NotFoundError: there is none.
    """
    with backend.database.write() as session:
        webhook = _find(session, owner, webhook_id, lock=True)
        deliveries.lock_all(session, webhook_id)
        session.delete(webhook)
        webhooks.forget_answers(session, webhook_id)


def rotate(backend: Backend, owner: str, webhook_id: str, *, once: Once | None, render: Render) -> Answer:
    """Give it a new secret; for a day both sign, so that the receiver can change over.

    A repeated request gets the secret of the first, until the next rotation.

    Raises:
        NotFoundError: there is none.
        InvalidRequestError: the key is that of a request with another body.
        RequestInFlightError: an earlier request under the key has no answer yet.
    """

    def run() -> Answer:
        with backend.database.write() as session:
            webhook = _find(session, owner, webhook_id, lock=True)
            webhooks.rotate(session, webhook, new_secret())
            return keeping(once, session, Answer(webhook.id, render(webhook), 200))

    return backend.claims.carry_out(backend.database, once, run)


def test(backend: Backend, owner: str, webhook_id: str) -> WebhookDelivery:
    """Send a test message, also to a disabled webhook: a good answer enables it again.

    Raises:
        NotFoundError: there is none.
    """
    with backend.database.write() as session:
        return outbox.test(session, _find(session, owner, webhook_id, lock=True))


def log(
    backend: Backend,
    owner: str,
    webhook_id: str,
    *,
    limit: int,
    after: str | None,
    descending: bool,
    status: DeliveryStatus | None,
) -> Sequence[WebhookDelivery]:
    """Up to `limit + 1` deliveries of a webhook.

    Raises:
        NotFoundError: there is no such webhook.
    """
    with backend.database.read() as session:
        _find(session, owner, webhook_id)
        return deliveries.page(
            session, webhook_id, limit=limit, after=after, descending=descending, status=status
        )


def _find(session: Session, owner: str, webhook_id: str, *, lock: bool = False) -> Webhook:
    webhook = None
    if has_prefix(webhook_id, Prefix.WEBHOOK):
        webhook = owned.find(session, Webhook, webhook_id, owner=owner, lock=lock)
    if webhook is None:
        raise NotFoundError(f"there is no webhook {webhook_id[:100]!r}")
    return webhook


def _checked(backend: Backend, text: str) -> str:
    """The URL as it is sent to: its host in ASCII, and on the Internet as far as can be told now."""
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise _refused("it is no URL; give one such as https://example.com/muka") from error
    networks = backend.settings.webhook_allowed_networks
    schemes = ("https", "http") if networks else ("https",)
    if url.scheme not in schemes or not url.host:
        raise _refused(f"it must be an absolute {' or '.join(schemes)} URL")
    if url.userinfo or url.fragment:
        raise _refused("it must hold no user, password or fragment; the signature tells who sends")
    port = PORTS[url.scheme] if url.port is None else url.port
    if not 1 <= port <= 65535:
        raise _refused("its port must be from 1 to 65535")
    try:
        Guard(networks).check(url.raw_host.decode("ascii"), port, is_encrypted=url.scheme == "https")
    except AddressRefusedError as error:
        hint = "who runs the service can allow a network by MUKA_WEBHOOK_ALLOWED_NETWORKS"
        raise _refused(f"{error}; {hint}") from error
    return str(url)


def _refused(why: str) -> InvalidRequestError:
    fault = Fault("/url", "webhook_url_refused", why)
    return InvalidRequestError(f"webhooks cannot be sent to this URL: {why}", faults=[fault])
