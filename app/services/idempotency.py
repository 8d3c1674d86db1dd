"""POSTs that may be repeated: the answer is stored in the transaction that creates the object.

A request claims its key before it does anything. Who comes under the same key meanwhile is refused, at
every process; who comes later gets the stored answer. What was refused, or failed, gives its key back. A
request that dies leaves its claim behind, which runs out within a minute.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from app.domain.errors import Fault, InvalidRequestError, RequestInFlightError
from app.domain.identifiers import Prefix, new_id
from app.persistence import idempotency
from app.persistence.database import Database
from app.persistence.idempotency import CLAIM_SECONDS, IN_FLIGHT, Claim

MAX_KEY_CHARS = 255
RENEW_SECONDS = CLAIM_SECONDS / 4
Made = TypeVar("Made")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """What a creating POST answers."""

    resource_id: str
    content: dict[str, Any]
    status: int
    """As HTTP counts them."""
    replayed: bool = False


@dataclass(frozen=True)
class Once:
    """A request that asks to be carried out at most once: its key, and what it must equal."""

    claim: Claim
    fingerprint: str

    @classmethod
    def of(cls, api_key_id: str, route: str, key: str, body: Any) -> "Once":
        """The key as the client sent it; equal JSON bodies have equal fingerprints.

        Raises:
            InvalidRequestError: the key is empty, too long, or not printable ASCII.
        """
        if not (1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()):
            detail = f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters; a UUID is a good choice"
            fault = Fault("header Idempotency-Key", "idempotency_key_invalid", detail)
            raise InvalidRequestError(f"the header Idempotency-Key {detail}", faults=[fault])
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        claim = Claim(api_key_id, route, key, new_id(Prefix.REQUEST))
        return cls(claim, sha256(canonical.encode()).hexdigest())


class Claims:
    """The keys of the requests that this process is carrying out, so that long ones keep theirs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken_at: dict[Claim, float] = {}

    def carry_out(self, database: Database, once: Once | None, run: Callable[[], Answer]) -> Answer:
        """Run it, unless an earlier request under its key has an answer. `run` keeps its answer: `keeping`.

        Raises:
            InvalidRequestError: that request had another body.
            RequestInFlightError: it has no answer yet.
        """
        if once is None:
            return run()
        if earlier := _claim(database, once):
            return earlier
        self._taken_at[once.claim] = self._clock()
        try:
            return run()
        except BaseException:
            _release(database, once.claim)
            raise
        finally:
            del self._taken_at[once.claim]

    def store(
        self,
        database: Database,
        once: Once | None,
        put: Callable[[Callable[[Session, Made], None]], Made],
        render: Callable[[Made], Answer],
    ) -> Answer:
        """As `carry_out`, for what has a transaction of its own: `put` calls what it is given within that."""

        def keep(session: Session, made: Made) -> None:
            keeping(once, session, render(made))

        return self.carry_out(database, once, lambda: render(put(keep)))

    def renew(self, database: Database) -> None:
        """Show that the requests that take long are not dead."""
        late = self._clock() - RENEW_SECONDS / 2
        for claim in [claim for claim, at in list(self._taken_at.items()) if at < late]:
            with database.write_alone() as session:
                idempotency.renew(session, claim)


def keeping(once: Once | None, session: Session, answer: Answer) -> Answer:
    """The answer, kept when there is a key, in the transaction that makes the object.

    Raises:
        RequestInFlightError: this request was taken for dead, and another one is carried out.
    """
    keep_all(session, [(once, answer)])
    return answer


def keep_all(session: Session, answers: Sequence[tuple[Once | None, Answer]]) -> None:
    """As `keeping`, of several requests: all of them, or it raises."""
    kept = [
        (once.claim, {"resource_id": each.resource_id, "response": each.content, "status": each.status})
        for once, each in answers
        if once is not None
    ]
    if kept and not idempotency.settle(session, kept):
        raise _in_flight()


def _claim(database: Database, once: Once) -> Answer | None:
    """None: it is ours. Otherwise what an earlier request was answered."""
    with database.write_alone() as session:
        if idempotency.take(session, once.claim, once.fingerprint):
            return None
    with database.read() as session:
        row = idempotency.find(session, once.claim)
    if row is None:  # it was given back, or ran out, just now
        raise _in_flight()
    if row.fingerprint != once.fingerprint:
        detail = "this Idempotency-Key was used with another body in the last 24 hours; send a fresh key"
        fault = Fault("header Idempotency-Key", "idempotency_key_reused", detail)
        raise InvalidRequestError(detail, faults=[fault], code="idempotency_key_reused")
    if row.status == IN_FLIGHT:
        raise _in_flight()
    return Answer(row.resource_id, row.response, row.status, replayed=True)


def _release(database: Database, claim: Claim) -> None:
    """Whatever the request has failed of counts; a claim that cannot be given back runs out."""
    try:
        with database.write_alone() as session:
            idempotency.release(session, claim)
    except DBAPIError as error:
        _log.warning("an Idempotency-Key is free again in %.0f s only: %s", CLAIM_SECONDS, error)


def _in_flight() -> RequestInFlightError:
    return RequestInFlightError(
        "an earlier request under this Idempotency-Key is still being carried out; send this one again in "
        "a moment, and it gets that one's answer"
    )
