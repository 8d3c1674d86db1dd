"""What every use case stands on, made once a process."""

from dataclasses import dataclass, field
from functools import partial
from typing import Self

from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
from app.services.idempotency import Claims
from app.services.sending import Sender
from app.settings import Settings
from app.storage import ArtifactStore, configured_store
from app.task_queue import TaskQueue


@dataclass(frozen=True)
class Backend:
    """Settings, database, store and queue."""

    settings: Settings
    database: Database
    store: ArtifactStore
    queue: TaskQueue
    sender: Sender = field(init=False)
    claims: Claims = field(init=False, default_factory=Claims)

    def __post_init__(self) -> None:
        """What is made of the parts."""
        object.__setattr__(self, "sender", Sender(self.database, self.queue))

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Open what the settings name; nothing connects before its first use."""
        database = Database(settings.resolved_database_url())
        return cls(
            settings=settings,
            database=database,
            store=configured_store(settings, partial(names_no_file, database)),
            queue=TaskQueue(settings.broker_url),
        )

    def close(self) -> None:
        """Return every connection."""
        self.sender.close()
        self.queue.close()
        self.database.close()
