"""The clients of `make bench-api` that wrk is: connections that ask again as soon as they are answered."""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_SCRIPT = """
local paths = {}
for path in io.lines(os.getenv("BENCH_PATHS")) do paths[#paths + 1] = path end
function request()
    return wrk.format("GET", paths[math.random(#paths)])
end
function done(summary, latency)
    local faults = 0
    for _, count in pairs(summary.errors) do faults = faults + count end
    io.write(string.format(
        '{"requests": %d, "microseconds": %d, "faults": %d, "p50": %f, "p99": %f, "max": %f}\\n',
        summary.requests, summary.duration, faults,
        latency:percentile(50), latency:percentile(99), latency.max))
end
"""


class LoadError(Exception):
    """Requests failed, so their times say nothing."""


def ask(url: str, key: str, paths: Sequence[str], *, connections: int, seconds: float) -> dict[str, float]:
    """GET paths at random for some seconds: requests a second, and milliseconds of the 50th, 99th and last.

    Raises:
        LoadError: an answer was an error, or a connection broke.
    """
    with tempfile.TemporaryDirectory() as name:
        script, listed = Path(name, "ask.lua"), Path(name, "paths")
        script.write_text(_SCRIPT, encoding="utf-8")
        listed.write_text("\n".join(paths) + "\n", encoding="utf-8")
        command = ["wrk", "--threads", "1", "--connections", str(connections), "--timeout", "10s", "--script"]
        command += [str(script), "--duration", f"{seconds:.0f}s", "--header", f"Authorization: Bearer {key}"]
        environment = {**os.environ, "BENCH_PATHS": str(listed)}
        done = subprocess.run([*command, url], env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return figures(json.loads(done.stdout.splitlines()[-1]))


def figures(told: dict[str, Any]) -> dict[str, float]:
    """What counts of wrk's summary.

    Raises:
        LoadError: not every request was answered well.
    """
    if told["faults"] or not told["requests"]:
        raise LoadError(f"{told['faults']} of {told['requests']} requests failed; the API's log tells why")
    return {
        "requests_per_second": told["requests"] / told["microseconds"] * 1e6,
        **{name: told[name] / 1000 for name in ("p50", "p99", "max")},
    }
