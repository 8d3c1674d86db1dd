"""A worker without a queue: attempts run in the test's process, and stop where the test says."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.recipe import ResolvedTeacher
from app.persistence.database import Database
from app.persistence.tables import Model
from app.settings import Settings
from app.storage import ArtifactStore
from tests.jobs import OWNER, add_corpus, add_job, add_teacher, student_of
from tests.tiny_models import TEXTS, make_teacher
from worker.__main__ import carry_out
from worker.lease import Lease, StopReason, claim

LABELS = (("travel", "money"), ("food", "money", "other"))


def teacher_folders(root: Path) -> list[Path]:
    """Two tiny teachers over `LABELS`, of two architectures."""
    kinds = ("bert", "distilbert")
    return [make_teacher(root / str(i), labels, kinds[i], seed=i) for i, labels in enumerate(LABELS)]


@dataclass
class Bench:
    """What one worker has, two teachers and a corpus. It saves a checkpoint after every step."""

    settings: Settings
    database: Database
    store: ArtifactStore
    teachers: list[ResolvedTeacher]
    corpus_id: str

    @classmethod
    def at(cls, settings: Settings, database: Database, store: ArtifactStore, folders: list[Path]) -> "Bench":
        pairs = zip(folders, LABELS, strict=True)
        teachers = [add_teacher(store, folder, labels) for folder, labels in pairs]
        own = settings.model_copy(update={"checkpoint_seconds": 0})
        return cls(own, database, store, teachers, add_corpus(database, store, TEXTS * 2))

    def upload_teachers(self) -> None:
        """Rows for the teachers as well: uploads of the owner, without which a job is not resumed."""
        with self.database.write() as session:
            for each in self.teachers:
                columns = {"id": each.object_id, "digest": each.digest, "storage_prefix": each.storage_prefix}
                told = {"size_bytes": 1, "files": [], "labels": [], "parameters": 1}
                kind = {"architecture": each.architecture, "model_type": "bert"}
                session.add(Model(owner=OWNER, **columns, **told, **kind))

    def job(self, **recipe: Any) -> str:
        training = {"epochs": 2, "batch_size": 4, "learning_rate": 1e-3, **recipe.pop("training", {})}
        method = recipe.pop("whole_method", {"name": "muka", "mc_samples": 2, **recipe.pop("method", {})})
        return add_job(
            self.database,
            **{
                "teachers": self.teachers,
                "corpus_id": self.corpus_id,
                "training": training,
                "method": method,
                **recipe,
            },
        )

    def lease(self, job_id: str) -> Lease:
        attempt = claim(self.database, job_id, worker="here", lease_seconds=60)
        assert attempt is not None
        return Lease(self.database, job_id, attempt, lease_seconds=60, heartbeat_seconds=0.05)

    def run(self, job_id: str, lease: Lease | None = None) -> int:
        lease = lease or self.lease(job_id)
        with lease.kept():
            return carry_out(self.settings, self.database, self.store, lease)

    def weights(self, job_id: str) -> str:
        prefix = student_of(self.database, job_id).storage_prefix
        with self.store.open(f"{prefix}/model.safetensors") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def at(lease: Lease, kind: str, nth: int, do: Callable[[], object]) -> None:
    """As soon as the nth event of a kind is told."""
    tell: Callable[..., None] = lease.tell
    seen = 0

    def telling(told: str, *arguments: Any, **columns: Any) -> None:
        nonlocal seen
        tell(told, *arguments, **columns)
        seen += told == kind
        if seen == nth and told == kind:
            do()

    lease.tell = telling  # type: ignore[method-assign]


def stop_at(
    lease: Lease,
    reason: StopReason,
    kind: str,
    nth: int = 1,
    *,
    first: Callable[[], object] = lambda: None,
) -> None:
    """Ask to stop as soon as the nth event of a kind is told; `first`: what happens just before."""

    def stop() -> None:
        first()
        lease.stop(reason)

    at(lease, kind, nth, stop)
