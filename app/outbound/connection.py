"""Connections to public addresses only.

A name is resolved once a connection; every address that it stands for is checked, and the connection goes
to one that was checked, not to the name. So a name that resolves differently a moment later (DNS rebinding)
leads nowhere else. TLS still asks for the name's certificate, and `Host` still has the name.
"""

import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import anyio
import httpcore

from app.outbound.addresses import Address, Network, is_public, is_within, parse

_SECONDS_AN_ADDRESS = 5.0
"""Before the next address of a host is tried, so that one that is a black hole does not take all the time."""

Resolve = Callable[[str, int], Sequence[str]]
"""The addresses of a host and port. Blocks; raises `OSError` when there are none."""


class AddressRefusedError(Exception):
    """The host has no address, or one to which this service does not go."""

    def __init__(self) -> None:
        # The same words for both, so that nobody can ask muka for the names of its network.
        super().__init__("the host does not resolve, or not to public addresses only")


def system_resolver(host: str, port: int) -> Sequence[str]:
    """As the operating system resolves."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True)
class Guard:
    """Decides where connections may go."""

    allowed: Sequence[Network] = ()
    """Networks that are not public and allowed all the same; plain http goes to these only."""
    resolve: Resolve = system_resolver

    def check(self, host: str, port: int, *, is_encrypted: bool) -> list[str]:
        """All addresses of the host, each of which may be connected to. Blocks.

        Raises:
            AddressRefusedError: one of them may not, or there is none.
        """
        try:
            found = [parse(text) for text in self.resolve(host, port)]
        except (OSError, ValueError) as error:  # ValueError: a name that no resolver can be asked for
            raise AddressRefusedError from error
        if not found or not all(self._allows(address, is_encrypted) for address in found):
            raise AddressRefusedError
        return [str(address) for address in found]

    def _allows(self, address: Address, is_encrypted: bool) -> bool:
        return is_within(address, self.allowed) or (is_encrypted and is_public(address))


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """How `httpcore` connects, for one request: to an address that the guard has checked."""

    def __init__(self, guard: Guard, *, is_encrypted: bool) -> None:
        self._guard = guard
        self._is_encrypted = is_encrypted
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (the interface of httpcore)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """To the first address that answers.

        Raises:
            AddressRefusedError: the host has an address that is not allowed, or none.
            httpcore.ConnectError: no address answers.
        """

        def check() -> list[str]:
            return self._guard.check(host, port, is_encrypted=self._is_encrypted)

        # A limiter of its own: name servers that never answer must not use up the threads of all others.
        alone = anyio.CapacityLimiter(1)
        *others, last = await anyio.to_thread.run_sync(check, abandon_on_cancel=True, limiter=alone)
        brief = _SECONDS_AN_ADDRESS if timeout is None else min(timeout, _SECONDS_AN_ADDRESS)
        for address in others:
            try:
                return await self._network.connect_tcp(address, port, brief, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(last, port, timeout, local_address, socket_options)
