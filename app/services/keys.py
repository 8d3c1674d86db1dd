"""API keys: made, listed and revoked by `muka keys`, and asked for at every request.

A key is 256 random bits, so its plain SHA-256 is kept: no dictionary has it and nobody can try them all,
which is all that a slow hash is good for. A keyed digest would need one more secret, shared by every process
that reads the database, and losing it would lock everybody out. A key is found by its digest: how long that
takes tells about digests, from which no key can be made.
"""

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable, Sequence

from app.domain.access import ANYBODY, DEFAULT_CALLER, Caller, Scope
from app.domain.errors import NotFoundError, UnauthorizedError
from app.domain.identifiers import Prefix, new_id
from app.persistence import keys
from app.persistence.database import Database
from app.persistence.tables import ApiKey
from app.settings import Settings

START = "muka_"
"""By which scanners recognise a key that was published by accident."""
SHOWN_CHARS = len(START) + 6
REMEMBERED_SECONDS = 5.0
"""A process asks the database about a key this often; a revoked key is refused after as long."""


def create(
    database: Database, owner: str, scopes: Sequence[Scope], name: str | None = None
) -> tuple[ApiKey, str]:
    """A new key.

    Returns:
        Its row, and the key itself, which is nowhere else: it is shown once.
    """
    key = START + secrets.token_urlsafe(32)
    row = ApiKey(
        id=new_id(Prefix.KEY),
        owner=owner,
        name=name,
        prefix=key[:SHOWN_CHARS],
        digest=_digest(key),
        scopes=sorted(set(scopes)),
    )
    with database.write() as session:
        session.add(row)
    return row, key


def every(database: Database) -> Sequence[ApiKey]:
    """All keys, also revoked ones, the oldest first."""
    with database.read() as session:
        return keys.every(session)


def revoke(database: Database, key_id: str) -> ApiKey:
    """The key opens nothing any more, `REMEMBERED_SECONDS` from now at the latest.

    Raises:
        NotFoundError: there is no such key.
    """
    with database.write() as session:
        keys.revoke(session, key_id)
        row = keys.find(session, key_id)
    if row is None:
        raise NotFoundError(f"there is no key {key_id[:100]!r}; `muka keys list` shows them")
    return row


def is_any_valid(database: Database) -> bool:
    """True when somebody could come in with a key of the database."""
    with database.read() as session:
        return keys.are_there_any(session, valid=True)


class Keyring:
    """Who is behind a key. One a process: it remembers valid keys for a few seconds."""

    def __init__(
        self, database: Database, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._clock = clock
        self._given = _digest(settings.api_key.get_secret_value()) if settings.api_key else None
        self._may_be_open = settings.api_key is None and settings.is_loopback
        self._remembered: dict[str, tuple[float, Caller]] = {}

    def remembered(self, key: str) -> Caller | None:
        """Without asking the database; None: ask `caller`."""
        until, caller = self._remembered.get(_digest(key), (0.0, None))
        return caller if self._clock() < until else None

    def caller(self, key: str) -> Caller:
        """Who sends this key; empty: none was sent.

        Raises:
            UnauthorizedError: nobody has it, or had it until it was revoked.
        """
        digest = _digest(key)
        if self._given is not None and hmac.compare_digest(digest, self._given):
            return self._remember(digest, DEFAULT_CALLER)
        caller = self._find(digest) if key else None
        if caller is not None:
            return self._remember(digest, caller)
        if not self._is_open():
            raise UnauthorizedError(
                "send an API key of this service as the header `Authorization: Bearer <key>`"
            )
        return ANYBODY if key else self._remember(digest, ANYBODY)

    def _find(self, digest: str) -> Caller | None:
        with self._database.read() as session:
            row = keys.find_valid(session, digest)
            if row is None or not hmac.compare_digest(row.digest, digest):
                return None
            is_use_untold = keys.is_use_untold(session, row.id)
        if is_use_untold:
            with self._database.write() as session:
                keys.tell_use(session, row.id)
        return Caller(row.id, row.owner, frozenset(map(Scope, row.scopes)))

    def _is_open(self) -> bool:
        """On loopback, until the first key is made."""
        if not self._may_be_open:
            return False
        with self._database.read() as session:
            return not keys.are_there_any(session)

    def _remember(self, digest: str, caller: Caller) -> Caller:
        """Only valid keys, so that nobody fills the memory with inventions."""
        self._remembered[digest] = (self._clock() + REMEMBERED_SECONDS, caller)
        return caller


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
