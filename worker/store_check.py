"""Whether the store is there, asked before a job is claimed: without it, an attempt would only fail."""

import threading
from functools import partial

from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.settings import Settings
from app.storage import StoreError, configured_store
from worker.system_errors import is_full

PATIENCE_SECONDS = 30.0
"""A network file system may hang for ever, and nothing interrupts who waits for it."""


class _Check(threading.Thread):
    """One question, in a thread of its own."""

    def __init__(self, settings: Settings, database: Database) -> None:
        super().__init__(name="store-check", daemon=True)
        self._settings, self._database = settings, database
        self.trouble: str | None = "the artifact store does not answer"

    def run(self) -> None:
        """Ask once."""
        try:
            configured_store(self._settings, partial(names_no_file, self._database)).check()
        except StoreError as error:
            self.trouble = None if is_full(error) else str(error)
        else:
            self.trouble = None


def store_trouble(
    settings: Settings, database: Database, patience_seconds: float = PATIENCE_SECONDS
) -> str | None:
    """Why a job had better wait in the queue; None when the store works.

    A full one is no reason: it does not empty itself, and the failure of a job tells its owner what to do.
    """
    check = _Check(settings, database)
    check.start()
    check.join(patience_seconds)
    return check.trouble
