"""Sends what is in the outbox of webhooks. Any number of processes may do so, and any of them may die."""

import asyncio
import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

from anyio import CapacityLimiter, to_thread

from app.domain.webhook import TEST_EVENT, DeliveryStatus, retry_delay, signatures
from app.outbound.connection import Guard
from app.outbound.post import PostAnswer, Poster, PostFailedError
from app.persistence import deliveries, webhooks
from app.persistence.deliveries import Claim, Outcome
from app.services.backend import Backend
from app.services.telemetry import WEBHOOK_ATTEMPTS

log = logging.getLogger(__name__)

LOOK_AGAIN_SECONDS = 1.0
AT_ONCE = 64
"""Deliveries that one process sends at the same time."""
AT_ONCE_PER_WEBHOOK = 4
"""So that a slow receiver holds up nobody but itself."""
DATABASE_THREADS = 4
CLAIM_SPARE_SECONDS = 30.0
"""How much longer a claim holds than an attempt may take."""
GONE = 410


class Deliverer:
    """A thread with an event loop of its own: what waits for receivers never waits in a request's way."""

    def __init__(
        self, backend: Backend, poster: Poster | None = None, *, every_seconds: float = LOOK_AGAIN_SECONDS
    ) -> None:
        settings = backend.settings
        self._backend = backend
        self._poster = poster or Poster(
            Guard(settings.webhook_allowed_networks), settings.webhook_timeout_seconds
        )
        self._every_seconds = every_seconds
        self._busy: Counter[str] = Counter()
        self._has_failed = False
        self._thread = threading.Thread(target=self._run, name="deliverer", daemon=True)
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._main: asyncio.Task[None] | None = None

    def start(self) -> None:
        """The first look is at once: events may have waited for this process."""
        self._thread.start()
        self._ready.wait()

    def stop(self) -> None:
        """Returns at once: what is being sent is given up, and sent again when its claim runs out."""
        if self._loop is not None and self._main is not None:
            self._loop.call_soon_threadsafe(self._main.cancel)
        self._thread.join()

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):  # that is how it is stopped
            asyncio.run(self._deliver())

    async def _deliver(self) -> None:
        self._loop, self._main = asyncio.get_running_loop(), asyncio.current_task()
        self._limiter = CapacityLimiter(DATABASE_THREADS)
        self._ready.set()
        async with asyncio.TaskGroup() as sending:
            while True:
                for claim in await self._claim():
                    self._busy[claim.webhook.id] += 1
                    sending.create_task(self._send(claim))
                await asyncio.sleep(self._every_seconds)

    async def _claim(self) -> list[Claim]:
        """What is due and fits; nothing while the database is away, which is told once."""
        free = AT_ONCE - self._busy.total()
        if free <= 0:
            return []
        look = partial(self._claim_now, free, dict(self._busy))
        try:
            claims = await to_thread.run_sync(look, limiter=self._limiter)
        except Exception as error:  # noqa: BLE001  (whatever fails now must be tried again)
            if not self._has_failed:
                log.warning("webhooks cannot be sent for now, and are later: %s", type(error).__name__)
            self._has_failed = True
            return []
        if self._has_failed:
            log.warning("webhooks are sent again")
        self._has_failed = False
        return claims

    def _claim_now(self, limit: int, busy: dict[str, int]) -> list[Claim]:
        with self._backend.database.read() as session:
            if not deliveries.is_any_due(session):
                return []
        with self._backend.database.write() as session:
            return deliveries.claim(
                session,
                limit=limit,
                per_webhook=AT_ONCE_PER_WEBHOOK,
                busy=busy,
                lease_seconds=self._backend.settings.webhook_timeout_seconds + CLAIM_SPARE_SECONDS,
            )

    async def _send(self, claim: Claim) -> None:
        try:
            outcome = await self._attempt(claim)
            WEBHOOK_ATTEMPTS.labels("succeeded" if outcome.error is None else "failed").inc()
            await to_thread.run_sync(self._record, claim, outcome, limiter=self._limiter)
        except Exception:  # it must not end the others; the claim runs out, and then it is sent again
            log.exception("%s was not sent, or what came of it cannot be written", claim.delivery.id)
        finally:
            self._busy -= Counter({claim.webhook.id: 1})

    async def _attempt(self, claim: Claim) -> Outcome:
        if claim.webhook.disabled_at is not None and claim.delivery.event != TEST_EVENT:
            return _outcome(
                claim, 0.0, None, f"not sent: the webhook is disabled ({claim.webhook.disabled_reason})"
            )
        body, timestamp = claim.delivery.body.encode(), int(claim.at.timestamp())
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "muka",
            "webhook-id": claim.delivery.id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": signatures(claim.secrets, claim.delivery.id, timestamp, body),
        }
        began = time.monotonic()
        try:
            answer = await self._poster.post(claim.webhook.url, headers, body)
        except PostFailedError as error:
            return _outcome(claim, time.monotonic() - began, None, str(error))
        return _outcome(claim, time.monotonic() - began, answer, _fault_of(answer))

    def _record(self, claim: Claim, outcome: Outcome) -> None:
        is_test = claim.delivery.event == TEST_EVENT
        retry_in = None if outcome.error is None or is_test else self._retry_in(claim, outcome)
        status = DeliveryStatus.SUCCEEDED if outcome.error is None else DeliveryStatus.FAILED
        with self._backend.database.write() as session:
            # The webhook first, like one that is deleted: whoever has it may touch its deliveries.
            if outcome.status_code == GONE:
                webhooks.disable(session, claim.webhook.id, "the receiver answered 410 Gone")
            elif is_test and outcome.error is None:
                webhooks.enable(session, claim.webhook.id)
            final = status if retry_in is None else DeliveryStatus.PENDING
            deliveries.record(session, claim, outcome, final, retry_in)

    def _retry_in(self, claim: Claim, outcome: Outcome) -> timedelta | None:
        """None: given up. The last attempt is made when the time is over."""
        if outcome.status_code == GONE or claim.webhook.disabled_at is not None:
            return None
        tries = claim.delivery.attempts
        first = datetime.fromisoformat(tries[0]["at"]) if tries else claim.at
        left = first + timedelta(seconds=self._backend.settings.webhook_retry_seconds) - claim.at
        if left <= timedelta():
            return None
        return min(retry_delay(claim.delivery.attempt, random.random()), left)


def _fault_of(answer: PostAnswer) -> str | None:
    """None for 2xx. A redirect is a fault too: it would lead to an address that nobody has checked."""
    if 200 <= answer.status_code < 300:
        return None
    return f"the receiver answered {answer.status_code}, which is not 2xx"


def _outcome(claim: Claim, seconds: float, answer: PostAnswer | None, error: str | None) -> Outcome:
    return Outcome(
        at=claim.at.isoformat(),
        status_code=None if answer is None else answer.status_code,
        error=error,
        duration_seconds=round(seconds, 3),
        response=None if answer is None else answer.text,
    )


@contextmanager
def delivering(backend: Backend) -> Iterator[None]:
    """With a deliverer at work while the block runs."""
    deliverer = Deliverer(backend)
    deliverer.start()
    try:
        yield
    finally:
        deliverer.stop()
