"""A small disk of the services' own, which can be full, and whose writes can fail.

It is a tmpfs in a mount namespace: commands enter the namespace, the test looks in through /proc, and
everything is gone with the process that holds it. Needs Linux, and root or user namespaces.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.processes import kept
from tests.e2e.service import ROOT
from tests.servers import wait_until

_HOLD = 'mount -t tmpfs -o size="$2" tmpfs "$1" && echo mounted && exec sleep infinity'


@dataclass(frozen=True)
class Disk:
    """Mounted at `path` for whoever has entered."""

    path: Path
    holder: int

    @property
    def enter(self) -> list[str]:
        """What stands before a command that is to see it."""
        user = [] if os.getuid() == 0 else ["--user", "--preserve-credentials"]
        return ["/usr/bin/env", "nsenter", "--target", str(self.holder), *user, "--mount", f"--wdns={ROOT}"]

    @property
    def seen(self) -> Path:
        """Its folder, for us who have not entered."""
        return Path(f"/proc/{self.holder}/root{self.path}")

    def fill(self) -> None:
        """Not a byte is left."""
        with (self.seen / "ballast").open("wb") as ballast:
            while True:
                try:
                    os.posix_fallocate(ballast.fileno(), ballast.seek(0, os.SEEK_END), 4096)
                except OSError:
                    return

    def empty(self) -> None:
        """There is room again."""
        (self.seen / "ballast").unlink()

    def remount(self, how: str) -> None:
        """`ro`: every write is an error; `rw`: none is. Waits for who has a file open."""
        command = [*self.enter, "mount", "-o", f"remount,bind,{how}", str(self.path)]
        wait_until(lambda: subprocess.run(command, check=False).returncode == 0, f"the disk is {how}")


@contextmanager
def small_disk(path: Path, size: str = "64m") -> Iterator[Disk]:
    """Mounted while the block runs."""
    path.mkdir()
    user = [] if os.getuid() == 0 else ["--user", "--map-root-user"]
    command = ["/usr/bin/env", "unshare", *user, "--mount", "sh", "-c", _HOLD, "sh", str(path), size]
    with subprocess.Popen(kept(command), stdout=subprocess.PIPE) as holder:
        try:
            if holder.stdout is None or holder.stdout.readline() != b"mounted\n":
                raise RuntimeError("no disk for the test: run it as root, or allow user namespaces")
            yield Disk(path, holder.pid)
        finally:
            holder.kill()
