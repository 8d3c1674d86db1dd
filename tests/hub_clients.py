"""Releases of `huggingface_hub` in environments of their own, as users have them: with nothing of muka."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RELEASES = {
    "0.36": ("huggingface_hub==0.36.*",),
    # Its command line needs click, which came with typer in those days.
    "1.0": ("huggingface_hub==1.0.*", "click"),
    "newest": ("huggingface_hub<3",),
}


@dataclass(frozen=True)
class HubClient:
    """One release, and a cache that starts empty."""

    packages: Path
    endpoint: str
    home: Path
    token: str | None = None

    def python(self, program: str, *arguments: str) -> Any:
        """Run a program as a user would write it, which prints JSON."""
        return json.loads(self._run("-c", program, *arguments).stdout)

    def hf(self, *arguments: str) -> str:
        """The command line, which must succeed; answers what it says."""
        return self._run("-m", "huggingface_hub.cli.hf", *arguments).stdout

    def _run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        hub = {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(self.home), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(
            # -S: without the packages of the interpreter itself.
            [base_python(), "-S", *arguments],
            env=kept
            | hub
            | {"PYTHONPATH": str(self.packages), "HOME": str(self.home)}
            | ({"HF_TOKEN": self.token} if self.token else {}),
            cwd=self.packages,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done


def install(folder: Path, *requirements: str) -> Path:
    """From the package index, without the network where pip has it in its cache."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    command = [*pip, "--target", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


def linked(folder: Path, *names: str) -> Path:
    """An environment of these packages and what they need, as far as they are installed here: only links."""
    folder.mkdir()
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another platform
        for top in {
            file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")
        }:
            (folder / top).symlink_to(found.locate_file(top))
        needed = map(Requirement, found.requires or ())
        waiting += [each.name for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]
    return folder


def base_python() -> str:
    """The interpreter that the virtual environment of the tests was made from."""
    return str(getattr(sys, "_base_executable", sys.executable))
