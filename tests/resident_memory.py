"""What of this process is in memory, on Linux."""

from pathlib import Path


def resident() -> int:
    """Bytes, those of mapped files included."""
    rollup = Path("/proc/self/smaps_rollup").read_text("ascii")
    return next(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Rss:"))
