"""One POST to an address that a user named: no redirects, no proxy, an end to everything."""

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import httpcore
import httpx

from app.outbound.connection import AddressRefusedError, Guard, GuardedBackend

KEPT_BYTES = 1024
"""Of an answer; the rest is not read."""
MAX_REASON_CHARS = 200


class PostFailedError(Exception):
    """There was no answer; the message says why."""


@dataclass(frozen=True)
class PostAnswer:
    """What came back."""

    status_code: int
    text: str
    """Its first bytes, as far as they are text."""


class Poster:
    """Sends POSTs, each over a connection of its own: a checked address is never kept for later."""

    def __init__(
        self, guard: Guard, timeout_seconds: float, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._guard = guard
        self._timeout_seconds = timeout_seconds
        self._ssl_context = ssl_context or httpx.create_ssl_context()

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> PostAnswer:
        """Send, and read the beginning of the answer.

        Raises:
            PostFailedError: no answer within the time, or the address is refused.
        """
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._post(url, headers, body)
        except TimeoutError as error:
            raise PostFailedError(f"no complete answer within {self._timeout_seconds:g} s") from error
        except AddressRefusedError as error:
            raise PostFailedError(str(error)) from error
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as error:
            raise PostFailedError(f"the connection failed: {error!s:.{MAX_REASON_CHARS}}") from error

    async def _post(self, url: str, headers: Mapping[str, str], body: bytes) -> PostAnswer:
        network = GuardedBackend(self._guard, is_encrypted=url.startswith("https:"))
        async with (
            httpcore.AsyncConnectionPool(ssl_context=self._ssl_context, network_backend=network) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=body) as response,
        ):
            received = b""
            async for chunk in response.aiter_stream():
                received += chunk
                if len(received) >= KEPT_BYTES:
                    break
            return PostAnswer(response.status, _text(received[:KEPT_BYTES]))


def _text(received: bytes) -> str:
    """Postgres keeps no NUL."""
    return received.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
