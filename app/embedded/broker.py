"""The embedded broker: a real server on a unix socket, whose queue survives us in the data folder."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.embedded.kept_process import KeptProcess
from app.embedded.server_binary import redis_server_binary
from app.processes import kept

STARTUP_SECONDS = 30.0
_LONGEST_SOCKET_PATH = 100
"""The kernel's limit is 104 bytes on macOS, 108 on Linux."""


class BrokerNotStartedError(Exception):
    """The server did not come up; its log says why."""


@contextmanager
def embedded_broker(folder: Path) -> Iterator[str]:
    """A running broker, started again when it dies: its URL.

    Args:
        folder: of the append-only file and the log.

    Raises:
        BrokerNotStartedError: Not up within 30 s.
        FileNotFoundError: There is no server binary.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _socket_folder(folder) as place:
        path = place / "broker.sock"
        server = KeptProcess("broker", kept(_command(folder, path)), stop_seconds=10)
        server.start()
        try:
            _wait_until_it_answers(path, folder / "broker.log")
            yield f"redis+socket://{path}"
        finally:
            server.stop()


def _command(folder: Path, path: Path) -> list[str]:
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder.resolve()),
        "logfile": str(folder.resolve() / "broker.log"),
        "loglevel": "warning",
        "appendonly": "yes",
        "save": "",
        "maxmemory-policy": "noeviction",
    }
    return [
        redis_server_binary(),
        *(part for name, value in options.items() for part in (f"--{name}", value)),
    ]


@contextmanager
def _socket_folder(folder: Path) -> Iterator[Path]:
    """A short path that only we can reach; what a killed predecessor left is removed."""
    note = folder / "socket-folder"
    if note.exists():
        shutil.rmtree(note.read_text(encoding="utf-8"), ignore_errors=True)
    place = tempfile.mkdtemp(prefix="muka-")
    if len(place) > _LONGEST_SOCKET_PATH - len("/broker.sock"):
        Path(place).rmdir()
        place = tempfile.mkdtemp(prefix="muka-", dir="/tmp")
    note.write_text(place, encoding="utf-8")
    try:
        yield Path(place)
    finally:
        shutil.rmtree(place, ignore_errors=True)
        note.unlink(missing_ok=True)


def _wait_until_it_answers(path: Path, log: Path) -> None:
    deadline = time.monotonic() + STARTUP_SECONDS
    while not _answers(path):
        if time.monotonic() > deadline:
            raise BrokerNotStartedError(f"the embedded broker did not start; see {log}")
        time.sleep(0.01)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
