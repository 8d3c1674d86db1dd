"""How much the API carries on two cores (`make bench-api`): Postgres, Redis, two processes, and keys.

Requests come from wrk, and from clients of our own where wrk cannot (posts under idempotency keys, event
streams, downloads), always in a process of their own; the jobs' database has a million rows. Rounds repeat
everything in turn and the median counts; beside it, what the same machine gave to `/healthz`, which does
nothing, in the same minute. Writes benchmarks/out/api.json; ends with 1 when a target is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks._api_rows import (
    LIVE,
    Service,
    filled,
    forget,
    job_id,
    large_student,
    submitted,
    submitters,
    tell,
)
from benchmarks._api_servers import Api, ToolMissingError, api, nginx, require_tools
from benchmarks._api_summary import TARGETS, medians, percentile, submission_faults, typical
from benchmarks._api_wrk import ask
from tests.servers import running_postgres, running_redis

OUT = Path(__file__).with_name("out")
CONNECTIONS = 32
LISTENERS = 500
DOWNLOADS = 5
SLICE_SECONDS = 2
"""So long do connections of wrk live where two figures are compared. Which process has how many of a few
connections is chance, and what else the machine does is, too: both are asked in turn, and medians count."""
GIB = 1 << 30


@dataclass(frozen=True)
class Place:
    """A service that runs over a table of so many jobs."""

    jobs: int
    service: Service
    api: Api

    def ask(self, paths: Sequence[str], connections: int, seconds: float) -> dict[str, float]:
        """Have wrk ask for these."""
        return ask(self.api.url, self.service.key, paths, connections=connections, seconds=seconds)


def in_turn(
    questions: Mapping[str, tuple[Place, Sequence[str]]], connections: int, seconds: float
) -> dict[str, dict[str, float]]:
    """Ask each for so many seconds, a slice of one after a slice of the other: the medians of the slices."""
    asked: dict[str, list[dict[str, float]]] = {name: [] for name in questions}
    for _ in range(max(1, round(seconds / SLICE_SECONDS))):
        for name, (place, paths) in questions.items():
            asked[name].append(place.ask(paths, connections, SLICE_SECONDS))
    return {name: typical(slices) for name, slices in asked.items()}


class Bench:
    """Everything that runs, and one method for each figure."""

    def __init__(self, few: Place, many: Place, folder: Path) -> None:
        self.few, self.many = few, many
        self.submitters = submitters(many.service.backend, CONNECTIONS)
        self.student, self.file, self.sha256 = large_student(many.service.backend, GIB)
        self.folder = folder

    def warm_up(self) -> None:
        """Connections and code that only the first requests have to wait for."""
        self.looking(2)
        self.listing(1)
        self.submitting(2 * CONNECTIONS)

    def round(self, seconds: float, jobs: int) -> dict[str, float]:
        """Every figure once, which takes about 8 times `seconds` and half a minute."""
        found = {"load_average": os.getloadavg()[0]}
        found |= self.looking(seconds) | self.listing(seconds / 2)
        return found | self.submitting(jobs) | self.listening() | self.downloading()

    def looking(self, seconds: float) -> dict[str, float]:
        """Single jobs of all kinds, and the route that does nothing."""
        newest = [f"/amalgamations/{job_id(self.many.jobs - number)}" for number in range(1000)]
        nothing = self.many.ask(["/healthz"], CONNECTIONS, seconds)
        found = self.many.ask(newest, CONNECTIONS, seconds)
        return {
            "healthz_requests_per_second": nothing["requests_per_second"],
            "healthz_p99_milliseconds": nothing["p99"],
            "get_requests_per_second": found["requests_per_second"],
            "get_p50_milliseconds": found["p50"],
            "get_p99_milliseconds": found["p99"],
        }

    def listing(self, seconds: float) -> dict[str, float]:
        """Pages of 20 with many jobs and with few, one after the other."""
        found: dict[str, float] = {}
        for name, query in self._lists(self.few.jobs).items():
            questions = {
                "few": (self.few, [query]),
                "many": (self.many, [self._lists(self.many.jobs)[name]]),
            }
            few, many = in_turn(questions, 4, seconds * (2 if name == "list" else 1)).values()
            found |= {
                f"{name}_p99_milliseconds_few": few["p99"],
                f"{name}_p99_milliseconds_many": many["p99"],
                f"{name}_p99_ratio": many["p99"] / few["p99"],
                f"{name}_p50_ratio": many["p50"] / few["p50"],
            }
        return found

    @staticmethod
    def _lists(jobs: int) -> dict[str, str]:
        pages = "/amalgamations?limit=20"
        return {
            "list": pages,
            "list_status": f"{pages}&status=failed",
            "list_common_tag": f"{pages}&metadata%5Bteam%5D=team-3",
            "list_rare_tag": f"{pages}&metadata%5Bticket%5D={jobs // 2}",
            "list_deep": f"{pages}&after={job_id(jobs // 2)}",
        }

    def submitting(self, jobs: int) -> dict[str, float]:
        """New jobs, every tenth of them sent twice; then rows, kept answers and messages are compared."""
        backend = self.many.service.backend
        told = self._load(
            "submit", port=self.many.api.port, submitters=self.submitters, jobs=jobs, repeat_every=10
        )
        faults = submission_faults(told["answers"], *submitted(backend))
        forget(backend)
        return {
            "post_jobs_per_second": jobs / told["seconds"],
            "post_p99_milliseconds": 1000 * percentile(told["times"], 0.99),
            "post_faults": sum(faults.values()),
            **{f"post_{name}": count for name, count in faults.items()},
        }

    def listening(self) -> dict[str, float]:
        """Streams on all running jobs at once, each of which then tells something."""
        running = [job_id(n) for n in range(self.many.jobs - LIVE + 1, self.many.jobs + 1) if n % 4 == 0]
        before = self.many.api.memory()
        wanted = {"port": self.many.api.port, "key": self.many.service.key}
        with self._loading("listen", **wanted, jobs=running, listeners=LISTENERS) as load:
            if load.stdout is None or load.stdout.readline() != "ready\n":
                raise RuntimeError("the listeners did not come to listen; what they said is above")
            up = self.many.api.memory()
            told_at = tell(self.many.service.backend, running)
            heard = json.loads(load.stdout.readline())["heard"]
        after = self.many.api.memory()
        return {
            "idle_bytes": sum(before),
            "listening_bytes": max(sum(up), sum(after)),
            "listening_bytes_of_larger_process": max(*up, *after),
            "listeners_that_heard": len(heard),
            "slowest_event_seconds": max(heard) - told_at,
        }

    def downloading(self) -> dict[str, float]:
        """The file from the API, as a .tar, and from nginx, in turn."""
        rates: dict[str, list[float]] = {"api": [], "tar": [], "nginx": []}
        student = f"/students/{self.student}"
        with nginx(self.folder / "nginx", self.file.parent) as port:
            places = {
                "api": (self.many.api.port, f"{student}/files/{self.file.name}"),
                "tar": (self.many.api.port, f"{student}/download"),
                "nginx": (port, f"/{self.file.name}"),
            }
            checked = self._download(*places["api"], is_hashed=True)
            if checked["sha256"] != self.sha256:
                raise RuntimeError("the downloaded file is not the one that is stored")
            self.many.api.forget_peak()
            before = sum(self.many.api.memory())
            for _ in range(DOWNLOADS):
                for name, place in places.items():
                    rates[name].append(self._rate(*place))
            growth = sum(self.many.api.memory("VmHWM")) - before
        best = {name: sorted(found)[len(found) // 2] for name, found in rates.items()}
        return {
            **{f"download_{name}_bytes_per_second": rate for name, rate in best.items()},
            "download_share": best["api"] / best["nginx"],
            "download_tar_share": best["tar"] / best["nginx"],
            "download_growth_bytes": growth,
        }

    def _rate(self, port: int, path: str) -> float:
        told = self._download(port, path, is_hashed=False)
        return float(told["bytes"] / told["seconds"])

    def _download(self, port: int, path: str, *, is_hashed: bool) -> dict[str, Any]:
        key = self.many.service.key
        told = self._load("download", port=port, path=path, key=key, is_hashed=is_hashed)
        if told["status"] != 200 or told["bytes"] < GIB:
            raise RuntimeError(f"status {told['status']} and {told['bytes']} bytes of {path}")
        return told

    def _load(self, kind: str, **wanted: Any) -> dict[str, Any]:
        with self._loading(kind, **wanted) as load:
            told: dict[str, Any] = json.loads(load.communicate()[0])
        return told

    @contextmanager
    def _loading(self, kind: str, **wanted: Any) -> Iterator[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "benchmarks._api_load", kind]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as load:
            try:
                if load.stdin is not None:
                    load.stdin.write(json.dumps(wanted) + "\n")
                    load.stdin.flush()
                yield load
            except BaseException:
                load.kill()
                raise


@contextmanager
def benches(few: int, many: int) -> Iterator[Bench]:
    """Servers, databases and services, gone with the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="muka-bench-api-")))

        def place(jobs: int) -> Place:
            print(f"a database with {jobs:,} jobs …", flush=True)
            postgres = stack.enter_context(
                running_postgres("fsync=on", "full_page_writes=on", "max_wal_size=4GB")
            )
            redis = stack.enter_context(running_redis("--appendonly", "yes"))
            home = folder / str(jobs)
            service = stack.enter_context(filled(home / "data", postgres.url, redis.url, jobs))
            return Place(jobs, service, stack.enter_context(api(home / "api", service.environment)))

        yield Bench(place(few), place(many), folder)


def main() -> None:
    """Run it, show it, write it down."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12, help="of asking for single jobs, in each round")
    parser.add_argument("--jobs", type=int, default=1_000_000, help="in the large table")
    parser.add_argument("--submissions", type=int, default=2000, help="in each round")
    arguments = parser.parse_args()
    try:
        require_tools()
    except ToolMissingError as error:
        sys.exit(str(error))
    rounds = []
    with benches(1000, arguments.jobs) as bench:
        bench.warm_up()
        for number in range(arguments.rounds):
            print(f"round {number + 1} of {arguments.rounds} …", flush=True)
            rounds.append(bench.round(arguments.seconds, arguments.submissions))
    figures = medians(rounds)
    OUT.mkdir(exist_ok=True)
    written = {"cores": len(os.sched_getaffinity(0)), "figures": figures, "rounds": rounds}
    (OUT / "api.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    _show(figures, len(rounds))
    sys.exit(not all(target.is_met(figures[target.figure]) for target in TARGETS))


def _show(figures: dict[str, float], rounds: int) -> None:
    table = Table("what", "measured", "wanted", "", title=f"The API, medians of {rounds} rounds")
    for target in TARGETS:
        table.add_row(*target.row(figures[target.figure]))
    others = Table("beside it", "measured")
    for name, value in figures.items():
        if name not in {target.figure for target in TARGETS}:
            others.add_row(name, f"{value:,.2f}")
    console = Console(highlight=False, width=120)
    console.print(table)
    console.print(others)


if __name__ == "__main__":
    main()
