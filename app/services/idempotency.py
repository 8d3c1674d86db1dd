"""POSTs that may be repeated: the answer is stored in the transaction that creates the object.

A request claims its key before it does anything. Who comes under the same key meanwhile is refused, at
every process; who comes later gets the stored answer. What was refused, or failed, gives its key back. A
request that dies leaves its claim behind, which runs out within a minute.
"""

import json
import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from app.domain.errors import Fault, InvalidRequestError, MukaError, RequestInFlightError
from app.domain.identifiers import Prefix, new_id
from app.persistence import idempotency
from app.persistence.database import Database
from app.persistence.idempotency import CLAIM_SECONDS, IN_FLIGHT, Claim
from app.persistence.tables import IdempotencyKey

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
        if not is_key(key):
            detail = f"must be 1 to {MAX_KEY_CHARS} printable ASCII characters; a UUID is a good choice"
            fault = Fault("header Idempotency-Key", "idempotency_key_invalid", detail)
            raise InvalidRequestError(f"the header Idempotency-Key {detail}", faults=[fault])
        canonical = json.dumps(body, sort_keys=True, separators=(",", ":"))
        claim = Claim(api_key_id, route, key, new_id(Prefix.REQUEST))
        return cls(claim, sha256(canonical.encode()).hexdigest())


def is_key(key: str) -> bool:
    """False for what no `Idempotency-Key` can be."""
    return 1 <= len(key) <= MAX_KEY_CHARS and key.isascii() and key.isprintable()


class Claims:
    """The keys of the requests that this process is carrying out, so that long ones keep theirs."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken_at: dict[Claim, float] = {}

    @contextmanager
    def held(
        self, database: Database, asked: Sequence[Once | None]
    ) -> Iterator[list[Answer | MukaError | None]]:
        """Claim the keys of several requests.

        Yields, for each of them, what an earlier request under its key was answered, or why it must not be
        carried out; None: carry it out, and put its end there. An answer was kept by then: see `keep_all`.
        Whoever has another end, and all of them when the block raises, give their keys back.
        """
        keys = [once for once in asked if once is not None]
        taken = _take_all(database, keys)
        mine = {once.claim for once in keys if once.claim.id in taken}
        self._taken_at |= dict.fromkeys(mine, self._clock())
        try:
            stopped = _earlier(database, [once for once in keys if once.claim not in mine])
            ends = [None if once is None else stopped.get(once.claim) for once in asked]
            yield ends
            for once, end in zip(asked, ends, strict=True):
                if once is not None and isinstance(end, Answer):
                    mine.discard(once.claim)  # what is left was not answered
        finally:
            for once in keys:
                self._taken_at.pop(once.claim, None)
            _release_all(database, mine)

    def carry_out(self, database: Database, once: Once | None, run: Callable[[], Answer]) -> Answer:
        """Run it, unless an earlier request under its key has an answer. `run` keeps its answer: `keeping`.

        Raises:
            InvalidRequestError: that request had another body.
            RequestInFlightError: it has no answer yet.
        """
        with self.held(database, [once]) as ends:
            if ends[0] is None:
                ends[0] = run()
        return answered(ends[0])

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


def answered(end: Answer | MukaError | None) -> Answer:
    """The answer, or the error raised."""
    if isinstance(end, Answer):
        return end
    raise end or RuntimeError("a request has not come to its end")


def _take_all(database: Database, asked: Sequence[Once]) -> set[str]:
    """Ids of the claims that have their keys now."""
    if not asked:
        return set()
    first: dict[tuple[str, str, str], Once] = {}
    for once in asked:
        first.setdefault(once.claim.of, once)  # no statement can take a row twice
    with database.write_alone() as session:
        return idempotency.take_all(session, [(each.claim, each.fingerprint) for each in first.values()])


def _earlier(database: Database, asked: Sequence[Once]) -> dict[Claim, Answer | MukaError]:
    """What others have made of these keys."""
    if not asked:
        return {}
    with database.read() as session:
        found = idempotency.find_all(session, [once.claim for once in asked])
    return {once.claim: _end_of(once, found.get(once.claim.of)) for once in asked}


def _end_of(once: Once, row: IdempotencyKey | None) -> Answer | MukaError:
    """The answer under its key, or why there is none for it."""
    if row is None:  # it was given back, or ran out, just now
        return _in_flight()
    if row.fingerprint != once.fingerprint:
        detail = "this Idempotency-Key was used with another body in the last 24 hours; send a fresh key"
        fault = Fault("header Idempotency-Key", "idempotency_key_reused", detail)
        return InvalidRequestError(detail, faults=[fault], code="idempotency_key_reused")
    if row.status == IN_FLIGHT:
        return _in_flight()
    return Answer(row.resource_id, row.response, row.status, replayed=True)


def _release_all(database: Database, claims: Collection[Claim]) -> None:
    """Whatever the requests have failed of counts; a claim that cannot be given back runs out."""
    if not claims:
        return
    try:
        with database.write() as session:
            idempotency.release_all(session, claims)
    except SQLAlchemyError as error:
        _log.warning(
            "%d Idempotency-Keys are free again in %.0f s only: %s", len(claims), CLAIM_SECONDS, error
        )


def _in_flight() -> RequestInFlightError:
    return RequestInFlightError(
        "an earlier request under this Idempotency-Key is still being carried out; send this one again in "
        "a moment, and it gets that one's answer"
    )
