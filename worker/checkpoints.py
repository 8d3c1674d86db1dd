"""Checkpoints of a job's training in the store: `jobs/<id>/attempt-<n>/checkpoints/<step>/…`."""

from pathlib import Path

from app.storage import ArtifactStore
from worker.muka import Checkpoint


class Checkpoints:
    """Those of one job: the newest of any attempt is where a new attempt goes on."""

    def __init__(self, store: ArtifactStore, job_id: str, attempt: int) -> None:
        self._store = store
        self._job = f"jobs/{job_id}"
        self._mine = f"{self._job}/attempt-{attempt}/checkpoints"

    def save(self, checkpoint: Checkpoint) -> None:
        """Move it in as one, then drop the older ones of this attempt."""
        older = self._prefixes(self._mine)
        with self._store.staging() as folder:
            checkpoint.write(folder / "checkpoint")
            self._store.put_folder(f"{self._mine}/{checkpoint.step}", folder / "checkpoint")
        for prefix in older:
            if _step(prefix) < checkpoint.step:
                self._store.delete(prefix)

    def newest(self) -> Path | None:
        """The one with the most steps; complete, since a folder is moved in as one."""
        found = self._prefixes(self._job)
        return self._store.local_path(max(found, key=_step)) if found else None

    def forget(self) -> None:
        """Remove everything that the job left, of all attempts."""
        self._store.delete(self._job)

    def _prefixes(self, below: str) -> list[str]:
        keys = self._store.list(below)
        return [key.removesuffix("/state.json") for key in keys if key.endswith("/state.json")]


def _step(prefix: str) -> int:
    return int(prefix.rsplit("/", 1)[1])
