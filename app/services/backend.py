"""What every use case stands on, made once a process."""

from dataclasses import dataclass
from functools import partial
from typing import Self

from app.persistence.database import Database
from app.persistence.leftovers import names_no_file
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
        self.queue.close()
        self.database.close()
