"""What every use case stands on, made once a process."""

from dataclasses import dataclass, field
from typing import Self

from app.persistence.database import Database
from app.services.idempotency import Claims
from app.services.sending import Sender
from app.settings import Settings
from app.storage import ArtifactStore, open_store
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
        return cls(
            settings=settings,
            database=Database(settings.resolved_database_url()),
            store=open_store(settings.resolved_store_dir()),
            queue=TaskQueue(settings.broker_url),
        )

    def close(self) -> None:
        """Return every connection."""
        self.sender.close()
        self.queue.close()
        self.database.close()
