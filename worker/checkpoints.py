"""Checkpoints of a job's training in the store: `jobs/<id>/attempt-<n>/checkpoints/<step>/…`.

Each is a model of its own, and beside its files has what a training needs to go on from it (`RESUME_FILES`).
Only the newest one keeps these.
"""

from collections.abc import Set
from pathlib import Path

from app.storage import ArtifactStore
from app.storage.keeping import all_but

STATE = "state.json"
RESUME_FILES = (STATE, "objective.safetensors", "optimizer.safetensors")
"""The state goes first: without it nobody tries to go on."""


class Checkpoints:
    """Those of one job, as one attempt sees them."""

    def __init__(self, store: ArtifactStore, job_id: str, attempt: int) -> None:
        self._store = store
        self._job = f"jobs/{job_id}"
        self._attempt = attempt

    def put(self, step: int, folder: Path) -> str:
        """Move it in as one; answers its place."""
        prefix = f"{self._job}/attempt-{self._attempt}/checkpoints/{step}"
        self._store.put_folder(prefix, folder)
        return prefix

    def resumable(self) -> list[Path]:
        """Where a training may go on, of any attempt, most steps first. Each is complete."""
        found = [prefix for prefix in self._all() if self._store.exists(f"{prefix}/{STATE}")]
        return [self._store.local_path(prefix) for prefix in sorted(found, key=_step, reverse=True)]

    def tidy(self, newest: str, kept: Set[str]) -> None:
        """Leave of what was written before the newest one only the models that are kept."""
        for prefix in self._all():
            if _attempt(prefix) > self._attempt or _step(prefix) > _step(newest) or prefix == newest:
                continue
            for gone in RESUME_FILES if prefix in kept else ("",):
                self._store.delete(f"{prefix}/{gone}".rstrip("/"))

    def forget(self, kept_files: Set[str]) -> None:
        """Remove everything that the job left, of all attempts, but these files."""
        for key in list(all_but(self._store, self._job, kept_files)):
            self._store.delete(key)

    def _all(self) -> list[str]:
        attempts = self._store.children(self._job)
        return [prefix for each in attempts for prefix in self._store.children(f"{each}/checkpoints")]


def _step(prefix: str) -> int:
    return int(prefix.rsplit("/", 1)[1])


def _attempt(prefix: str) -> int:
    return int(prefix.split("/attempt-", 1)[1].split("/", 1)[0])
