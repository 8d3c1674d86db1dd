"""The servers of `make bench-api`: two processes of the API at one port, nginx beside them."""

import os
import pwd
import shutil
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx

from tests.servers import Server, free_port, running

PROCESSES = 2
ROOT = Path(__file__).parents[1]

_NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
user {user};
worker_processes {processes};
events {{}}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


class ToolMissingError(Exception):
    """A program that the benchmark needs is not installed."""


def require_tools() -> None:
    """wrk, which asks, and nginx, to compare with.

    Raises:
        ToolMissingError: with how they are installed.
    """
    if missing := [tool for tool in ("wrk", "nginx") if _found(tool) is None]:
        raise ToolMissingError(
            f"this benchmark needs {' and '.join(missing)}, on Linux: `apt-get install wrk nginx-light` on "
            "Debian and Ubuntu"
        )


def _found(tool: str) -> str | None:
    return shutil.which(tool, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Api:
    """A running API."""

    port: int
    pids: Sequence[int]
    """Of the processes that answer."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def memory(self, field: str = "VmRSS") -> list[int]:
        """Resident bytes of each process; `VmHWM`: the most since `forget_peak`."""
        return [_status_bytes(pid, field) for pid in self.pids]

    def forget_peak(self) -> None:
        """From now on `VmHWM` counts anew."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _status_bytes(pid: int, field: str) -> int:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition(f"{field}:")[2].split()[0]) * 1024


@contextmanager
def api(folder: Path, environment: Mapping[str, str]) -> Iterator[Api]:
    """The API as in production: two processes at one port, their output in `folder`."""
    port = free_port()
    command = [sys.executable, "-m", "app.cli", "serve", "--reuse-port", "--port", str(port)]
    servers = []
    with ExitStack() as stack:
        for number in range(PROCESSES):
            own = folder / str(number)
            own.mkdir(parents=True, exist_ok=True)
            identity = {"env": {**os.environ, "PYTHONPATH": str(ROOT), **environment}}
            url = f"http://127.0.0.1:{port}"
            server = Server(url, command, own, signal.SIGTERM, partial(_is_ready, own / "log"), identity)
            servers.append(stack.enter_context(running(server)))
        yield Api(port, [server.process.pid for server in servers])


def _is_ready(log: Path) -> bool:
    return "muka is ready" in log.read_text(encoding="utf-8")


@contextmanager
def nginx(folder: Path, root: Path) -> Iterator[int]:
    """Serve the files below `root` by nginx: its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    user = pwd.getpwuid(os.getuid()).pw_name
    text = _NGINX.format(folder=folder, user=user, processes=PROCESSES, port=port, root=root)
    (folder / "nginx.conf").write_text(text, encoding="utf-8")
    command = [str(_found("nginx")), "-p", str(folder), "-c", str(folder / "nginx.conf")]
    url = f"http://127.0.0.1:{port}/"
    with running(Server(url, command, folder, signal.SIGTERM, partial(_answers, url))):
        yield port


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        return False
