"""The arithmetic of `make bench-api`: medians of rounds, what was wanted, and whether a job was lost."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

MB = 1_000_000


@dataclass(frozen=True)
class Target:
    """What a figure is wanted to be."""

    figure: str
    label: str
    wanted: float
    is_limit: bool
    """At most so much; otherwise at least."""
    unit: str = ""

    def is_met(self, value: float) -> bool:
        """True when the figure is as wanted."""
        return value <= self.wanted if self.is_limit else value >= self.wanted

    def row(self, value: float) -> tuple[str, str, str, str]:
        """As a row of the table: label, measured, wanted, verdict."""
        told = f"{'at most' if self.is_limit else 'at least'} {_shown(self.wanted, self.unit)}"
        return self.label, _shown(value, self.unit), told, "met" if self.is_met(value) else "MISSED"


TARGETS = (
    Target("get_requests_per_second", "GET /amalgamations/{id}, 32 connections", 1200, False, "/s"),
    Target("get_p99_milliseconds", "its 99th percentile", 30, True, " ms"),
    Target("post_jobs_per_second", "POST /amalgamations, 32 connections", 200, False, "/s"),
    Target("post_faults", "of them lost, doubled or not sent", 0, True),
    Target("list_p99_ratio", "GET /amalgamations?limit=20: p99 with a million jobs / with 1,000", 1.5, True),
    Target("listening_bytes", "500 event streams: resident memory of both processes", 300 * MB, True, "B"),
    Target("download_share", "1 GB download: rate / nginx' rate", 0.6, False),
    Target("download_growth_bytes", "what it adds to the memory at its peak", 32 * MB, True, "B"),
)


def _shown(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / MB:,.0f} MB"
    return f"{value:,.0f}{unit}" if abs(value) >= 100 or value == int(value) else f"{value:.2f}{unit}"


def typical(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: median(each[name] for each in rounds) for name in rounds[0]}


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of each figure over the rounds; lost jobs are added up, for none may be forgiven."""
    return typical(rounds) | {"post_faults": sum(each["post_faults"] for each in rounds)}


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that so great a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def submission_faults(
    answers: Iterable[tuple[str, str, int]],
    rows: Collection[str],
    kept: Mapping[str, str],
    messages: Collection[str],
) -> dict[str, int]:
    """What is wrong after a round of submissions; each number should be 0.

    Args:
        answers: idempotency key, job id and status of every answer.
        rows: ids of all jobs of the submitters.
        kept: job id by idempotency key, as stored.
        messages: ids in the workers' queue.
    """
    given: dict[str, set[str]] = {}
    statuses: Counter[int] = Counter()
    for key, job_id, status in answers:
        given.setdefault(key, set()).add(job_id)
        statuses[status] += 1
    promised = {job_id for ids in given.values() for job_id in ids}
    return {
        "refused": sum(count for status, count in statuses.items() if status != 202),
        "doubled": sum(len(ids) - 1 for ids in given.values()) + len(set(rows) - promised),
        "lost": len(promised - set(rows)),
        "unsent": len(promised - set(messages)),
        "answers_not_kept": sum(kept.get(key) not in ids for key, ids in given.items()),
    }
