"""Jobs in a process of their own: `python -m benchmarks._scale_run FOLDER JOB…` prints what each took.

The first job only warms up what is loaded once. Times are of the processor, so that others on the machine do
not count, and of the stages that go through texts.
"""

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from app.domain.status import Stage
from app.persistence.database import Database
from app.settings import Settings
from app.storage import open_store
from worker.__main__ import carry_out
from worker.lease import Lease, claim

LEASE_SECONDS = 600
LOOK_SECONDS = 0.02
OF_TEXTS = (Stage.SCORING, Stage.TRAINING, Stage.EVALUATING)


class Memory:
    """What of this process is in memory; the kernel remembers the peak of all of it, not of its parts.

    Attributes:
        anonymous: Largest seen, in bytes: what the process holds itself.
    """

    def __init__(self) -> None:
        self.anonymous = 0

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Looked at every 20 ms while the block runs."""
        done = threading.Event()
        thread = threading.Thread(target=self._watch, args=(done,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _watch(self, done: threading.Event) -> None:
        while not done.wait(LOOK_SECONDS):
            self.anonymous = max(self.anonymous, resident("RssAnon"))


def resident(field: str) -> int:
    """A line of /proc/self/status in bytes: `RssAnon`, `RssFile` (which the kernel may drop), `VmHWM`."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def run(settings: Settings, database: Database, job_id: str) -> dict[str, Any]:
    """Run the job as a worker does."""
    attempt = claim(database, job_id, worker="benchmark", lease_seconds=LEASE_SECONDS)
    if attempt is None:
        raise RuntimeError(f"{job_id} is not queued")
    lease = Lease(database, job_id, attempt, lease_seconds=LEASE_SECONDS, heartbeat_seconds=15)
    times: list[tuple[str, float]] = []
    lease.tell = _timed(lease.tell, times)  # type: ignore[method-assign]
    memory = Memory()
    with memory.watched(), lease.kept():
        if carry_out(settings, database, open_store(settings.resolved_store_dir()), lease):
            raise RuntimeError(f"{job_id} was lost")
    times.append(("", time.process_time()))
    stages = {stage: after - at for (stage, at), (_, after) in pairwise(times)}
    return {
        "seconds": {stage: round(spent, 3) for stage, spent in stages.items()},
        "of_texts": sum(stages[stage] for stage in OF_TEXTS),
        "peak_anonymous_bytes": memory.anonymous,
        "peak_rss_bytes": resident("VmHWM"),
    }


def _timed(tell: Callable[..., None], times: list[tuple[str, float]]) -> Callable[..., None]:
    def telling(kind: str, message: str, data: dict[str, Any] | None = None, **columns: Any) -> None:
        tell(kind, message, data, **columns)
        if kind == "stage" and data is not None:
            times.append((str(data["stage"]), time.process_time()))

    return telling


def main(folder: Path, jobs: list[str]) -> None:
    """Print a JSON list with an entry for every job but the first."""
    settings = Settings(data_dir=folder, checkpoint_seconds=3600)
    database = Database(settings.resolved_database_url())
    print(json.dumps([run(settings, database, job_id) for job_id in jobs][1:]))
    database.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
