"""The HTTP server of `muka serve`: a socket, uvicorn on it, and how signals end both."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import typer
import uvicorn
from uvicorn.importer import import_from_string

from app.cli.messages import give_up
from app.settings import Settings

_LAST_REQUESTS_SECONDS = 5
"""What is not answered by then, like a long poll, is cut off."""


@contextmanager
def listening_socket(host: str, port: int, *, is_shared: bool = False) -> Iterator[socket.socket]:
    """Bound before anything is started, so that a port that is taken costs nothing. 0: a free one.

    `is_shared`: with all others that say so, each of which has a queue of its own, to which the kernel gives
    its share of the connections. Processes with one queue between them take what they find first: one may
    have them all, while the other has nothing to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=2048, reuse_port=is_shared)
    except OSError as error:
        give_up(
            f"cannot listen on {host}, port {port}: {error.strerror}. --port 0 takes a free port", status=1
        )
    with listening:
        yield listening


def sigterm_is_ctrl_c() -> None:
    """So that both unwind the stack and stop what was started."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def run_http_server(settings: Settings, listening: socket.socket) -> None:
    """Serve until a signal comes, which is raised again as KeyboardInterrupt."""
    host, port = listening.getsockname()[:2]
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    # By name, as uvicorn itself would: app.main wires everything and so stands above the command line.
    create_app = import_from_string("app.main:create_app")
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_LAST_REQUESTS_SECONDS,
        server_header=False,
    )
    _Announcing(config, url).run(sockets=[listening])


class _Announcing(uvicorn.Server):
    """Says where it listens once it does."""

    def __init__(self, config: uvicorn.Config, url: str) -> None:
        super().__init__(config)
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, and then told."""
        await super().startup(sockets)
        if self.started:
            typer.echo(f"muka is ready at {self._url} (its API: {self._url}/docs). Ctrl-C stops it.")
