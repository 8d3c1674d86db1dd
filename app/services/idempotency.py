"""POSTs that may be repeated: the answer is stored in the transaction that creates the object.

Two requests at the same time under one key: the database lets
one transaction win; the other waits for it, is rolled back, and gets the winner's answer.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from app.domain.errors import Fault, InvalidRequestError
from app.persistence import idempotency
from app.persistence.database import Database
from app.persistence.tables import IdempotencyKey

MAX_KEY_CHARS = 255
Made = TypeVar("Made")


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

    api_key_id: str
    route: str
    key: str
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
        return cls(api_key_id, route, key, hashlib.sha256(canonical.encode()).hexdigest())

    def earlier(self, database: Database) -> Answer | None:
        """The answer to an earlier request under this key.

        Raises:
            InvalidRequestError: that request had another body.
        """
        with database.read() as session:
            return self.earlier_within(session)

    def earlier_within(self, session: Session) -> Answer | None:
        """As `earlier`, in a transaction: for what locks its object first, and then decides.

        Raises:
            InvalidRequestError: that request had another body.
        """
        row = idempotency.find(session, self.api_key_id, self.route, self.key)
        if row is None:
            return None
        if row.fingerprint != self.fingerprint:
            detail = "this Idempotency-Key was used with another body in the last 24 hours; send a fresh key"
            fault = Fault("header Idempotency-Key", "idempotency_key_reused", detail)
            raise InvalidRequestError(detail, faults=[fault], code="idempotency_key_reused")
        return Answer(row.resource_id, row.response, row.status, replayed=True)

    def keep(self, session: Session, answer: Answer) -> None:
        """Store the answer, in the transaction that makes the object."""
        row = IdempotencyKey(
            api_key_id=self.api_key_id,
            route=self.route,
            key=self.key,
            fingerprint=self.fingerprint,
            resource_id=answer.resource_id,
            response=answer.content,
            status=answer.status,
        )
        idempotency.add(session, row)


def create(database: Database, once: Once | None, make: Callable[[Session], Answer]) -> Answer:
    """Run `make` in one transaction, and keep its answer under the key when there is one."""

    def run() -> Answer:
        with database.write() as session:
            answer = make(session)
            if once is not None:
                once.keep(session, answer)
            return answer

    return _unless_another_was_quicker(database, once, run)


def store(
    database: Database,
    once: Once | None,
    put: Callable[[Callable[[Session, Made], None]], Made],
    render: Callable[[Made], Answer],
) -> Answer:
    """As `create`, for what has a transaction of its own: `put` calls what it is given within that."""
    if once is not None and (replay := once.earlier(database)):
        return replay

    def keep(session: Session, made: Made) -> None:
        if once is not None:
            once.keep(session, render(made))

    return _unless_another_was_quicker(database, once, lambda: render(put(keep)))


def _unless_another_was_quicker(database: Database, once: Once | None, run: Callable[[], Answer]) -> Answer:
    try:
        return run()
    except IntegrityError:
        replay = once.earlier(database) if once is not None else None
        if replay is None:
            raise
        return replay
