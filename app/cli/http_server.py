"""The HTTP server of `muka serve`: a socket, uvicorn on it, and how signals end both."""

import errno
import resource
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType

import typer
import uvicorn
from uvicorn.importer import import_from_string

from app.cli.messages import give_up
from app.settings import Settings

_MANY_FILES = 65_536
"""More is no use: programs that are started from here may look through as many as they could have open."""
_LAST_REQUESTS_SECONDS = 5
"""What is not answered by then, like a long poll, is cut off."""


@contextmanager
def listening_socket(host: str, port: int, *, is_shared: bool = False) -> Iterator[socket.socket]:
    """Bound before anything is started, so that a port that is taken costs nothing. 0: a free one.

    `is_shared`: with all others that say so, each of which has a queue of its own, to which the kernel gives
    its share of the connections: not before the HTTP server listens, for until then nobody answers them here.
    Processes with one queue between them take what they find first: one may have them all, while the other
    has nothing to do.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bind = _bound_with_others if is_shared else partial(socket.create_server, backlog=2048)
    try:
        listening = bind((host, port), family=family)
    except OSError as error:
        give_up(
            f"cannot listen on {host}, port {port}: {error.strerror}. --port 0 takes a free port", status=1
        )
    with listening:
        yield listening


def _bound_with_others(address: tuple[str, int], *, family: int) -> socket.socket:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError(errno.EOPNOTSUPP, "this system cannot share a port")
    bound = socket.socket(family)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)
    except OSError:
        bound.close()
        raise
    return bound


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
    _allow_many_connections()
    config = uvicorn.Config(
        create_app(settings),
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
        timeout_graceful_shutdown=_LAST_REQUESTS_SECONDS,
        server_header=False,
    )
    _Announcing(config, url).run(sockets=[listening])


def _allow_many_connections() -> None:
    """As many files as an administrator allows: the default, often 1,024, is one that programs may raise."""
    few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MANY_FILES if most == resource.RLIM_INFINITY else min(most, _MANY_FILES)
    if few != resource.RLIM_INFINITY and few < wanted:
        with suppress(ValueError, OSError):  # macOS says "unlimited", and takes no more than its own limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


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
