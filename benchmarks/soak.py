"""Three hundred small jobs, and somebody who breaks things all the time (`make bench-soak`).

Two workers, two APIs, Postgres and Redis; again and again, after less time than a job takes, one of them is
killed, frozen, restarted or emptied. In the end every job must have ended once, its student must load and be
the one that an undisturbed job makes, byte for byte; nothing may be left over, and nothing may have grown in
the processes that were spared: the second API and the first worker. A job that loses its worker three times
has failed, as promised; it is resumed as its owner would do it, and counted. Linux only. Writes
benchmarks/out/soak.json. On a busy machine workers need longer leases: MUKA_TEST_LEASE_SECONDS=60.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from sqlalchemy import func, select
from transformers import AutoModelForSequenceClassification
from transformers.utils.logging import disable_progress_bar

from app.client.errors import MukaClientError
from app.domain.status import FailureCode, Status
from app.persistence.database import Database
from app.persistence.tables import Amalgamation
from benchmarks._soak_killer import Killer
from benchmarks._soak_samples import Samples
from tests.chaos.checks import check_world
from tests.chaos.installation import Installation, installation
from tests.jobs import student_of

OUT = Path(__file__).with_name("out")
DEEDS_EVERY = 0.75
"""Of the time of an undisturbed job: about every third attempt is lost, and few jobs lose three."""
ALLOWED = {"MiB": 0.15, "threads": 0.25, "file handles": 0.25, "connections": 0.25, "keys": 0.25}
"""By which share the last third may lie above the first one; what grows with every job grows much more."""


def soak(world: Installation, jobs: int, seed: int) -> dict[str, Any]:
    """Submit, break, resume until all have succeeded, and look at everything; answers what was measured."""
    other = world.another_api("api-spared")
    other.start()
    try:
        undisturbed = _seconds_undisturbed(world)
        killer = Killer(world, seed, every_seconds=DEEDS_EVERY * undisturbed)
        spared = {"API": other, "worker": world.workers[0]}
        samples, started = Samples(world, spared), time.monotonic()
        submitted = [world.submit() for _ in range(jobs)]
        with samples.taken():
            _until_all_have_succeeded(world, submitted, killer)
        seconds = time.monotonic() - started
    finally:
        other.stop()
    resumed = _resumed(world, submitted)
    check_world(world, dict.fromkeys(submitted, Status.SUCCEEDED), resumed=resumed)
    return {
        "jobs": jobs,
        "seed": seed,
        "seconds": seconds,
        "seconds_of_an_undisturbed_job": undisturbed,
        "deeds": dict(killer.done),
        "resumed": len(resumed),
        "attempts": _attempts(world, submitted),
        "students_loaded": sum(_loads(world, job_id) for job_id in submitted),
        "first_and_last_third": samples.thirds(),
        "series": samples.series,
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[2],
    }


def _seconds_undisturbed(world: Installation) -> float:
    """What a job takes to which nothing happens; the inputs are there by then."""
    assert world.undisturbed
    started = time.monotonic()
    world.ended(world.submit())
    return time.monotonic() - started


def _until_all_have_succeeded(world: Installation, jobs: list[str], killer: Killer) -> None:
    shown = time.monotonic()
    while True:
        killer.act()
        states = _states(world.database, jobs)
        for job_id, failure in states.pop(Status.FAILED, {}).items():
            if failure is None or failure["code"] != FailureCode.WORKER_LOST:
                raise RuntimeError(f"{job_id} has failed: {failure}")
            with suppress(MukaClientError):  # the API was killed just now: next time
                world.client.amalgamations.resume(job_id)
        done = len(states.get(Status.SUCCEEDED, ()))
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(f"{done} of {len(jobs)} jobs, {sum(killer.done.values())} deeds", flush=True)
        if done == len(jobs):
            return


def _resumed(world: Installation, jobs: list[str]) -> list[str]:
    """The jobs, as often as each had failed."""
    query = select(Amalgamation.id, Amalgamation.transitions).where(Amalgamation.id.in_(jobs))
    with world.database.read() as session:
        rows = session.execute(query).all()
    return [job_id for job_id, told in rows for each in told if each["status"] == Status.FAILED]


def _states(database: Database, jobs: list[str]) -> dict[str, dict[str, Any]]:
    """Failures of the jobs in each status."""
    states: dict[str, dict[str, Any]] = {}
    query = select(Amalgamation.id, Amalgamation.status, Amalgamation.failure)
    with database.read() as session:
        for job_id, status, failure in session.execute(query.where(Amalgamation.id.in_(jobs))):
            states.setdefault(status, {})[job_id] = failure
    return states


def _attempts(world: Installation, jobs: list[str]) -> dict[int, int]:
    """How many jobs took so many attempts."""
    query = select(Amalgamation.attempt, func.count()).where(Amalgamation.id.in_(jobs))
    with world.database.read() as session:
        found = session.execute(query.group_by(Amalgamation.attempt)).all()
    return dict(sorted((attempt, number) for attempt, number in found))


def _loads(world: Installation, job_id: str) -> bool:
    folder = world.store.local_path(student_of(world.database, job_id).storage_prefix)
    return bool(AutoModelForSequenceClassification.from_pretrained(folder).num_labels)


def grown(thirds: dict[str, tuple[float, float]]) -> list[str]:
    """What is larger in the last third than is allowed."""
    return [
        name
        for name, (first, last) in thirds.items()
        if last > first * (1 + ALLOWED[name.rpartition(": ")[2]]) + 1
    ]


def _show(told: dict[str, Any]) -> None:
    console = Console(highlight=False)
    table = Table("what could grow", "first third", "last third", title="Medians")
    for name, (first, last) in told["first_and_last_third"].items():
        table.add_row(name, f"{first:.1f}", f"{last:.1f}")
    console.print(table)
    for name, number in told["deeds"].items():
        console.print(f"{number:>4} times {name}")
    console.print(
        f"{told['jobs']} jobs, {told['students_loaded']} students that load, all alike, in "
        f"{told['seconds'] / 60:.1f} minutes; jobs by attempts: {told['attempts']}; "
        f"{told['resumed']} were resumed after their third loss",
        soft_wrap=True,
    )


def main() -> None:
    """Run it, show it, write it down; 1 when something has grown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=1, help="of the dice")
    chosen = parser.parse_args()
    disable_progress_bar()  # type: ignore[no-untyped-call]
    with (
        tempfile.TemporaryDirectory() as folder,
        installation(Path(folder), texts=96, epochs=4, MUKA_MAX_QUEUED_JOBS="100000") as world,
    ):
        told = soak(world, chosen.jobs, chosen.seed)
    told["grown"] = grown(told["first_and_last_third"])
    OUT.mkdir(exist_ok=True)
    OUT.joinpath("soak.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    _show(told)
    sys.exit(f"grown: {', '.join(told['grown'])}" if told["grown"] else 0)


if __name__ == "__main__":
    main()
