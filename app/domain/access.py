"""Who may do what: an owner's objects are opened by keys, and a key by its scopes."""

from dataclasses import dataclass, replace
from enum import StrEnum

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Scope(StrEnum):
    """What a key may be used for."""

    READ = "read"
    """Look, list, plan, download and ask: nothing changes."""
    WRITE = "write"
    """Upload, submit, cancel and delete. Does not include `read`."""
    ADMIN = "admin"
    """Everything that the others may, and what concerns the whole service."""


@dataclass(frozen=True)
class Caller:
    """Who is behind a request."""

    api_key_id: str
    owner: str
    """Whose objects exist for this caller; all others do not."""
    scopes: frozenset[Scope]
    has_key: bool = True
    """False: no key is asked for."""

    def may(self, scope: Scope) -> bool:
        """True when one of the key's scopes covers it."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


DEFAULT_CALLER = Caller("default", "default", frozenset(Scope))
"""Who has the key of the setting MUKA_API_KEY."""
ANYBODY = replace(DEFAULT_CALLER, has_key=False)
"""Where no key is asked for; whose objects are those of the setting's key."""
