"""Where no key is asked for, only this machine is let in, and not the page of a stranger in its browser.

A browser lets pages send requests to 127.0.0.1: openly, and then it names the page's `Origin`; or under
a name of the page's own that is made to lead there (DNS rebinding), and then it sends that name as `Host`.
"""

from functools import lru_cache
from ipaddress import ip_address

from starlette.datastructures import Headers

from app.domain.errors import HostNotAllowedError


def refuse_strangers(headers: Headers, allowed: tuple[str, ...]) -> None:
    """Let a request without a key pass when it is sent to, and by, this machine under one of its names.

    Raises:
        HostNotAllowedError: it is sent to another name, or by a page of another one.
    """
    host = _name(headers.get("host", ""))
    if not _is_local(host, allowed):
        raise HostNotAllowedError("Host", host)
    origin = headers.get("origin")
    if origin is not None and not _is_local(page := _name(origin.partition("://")[2]), allowed):
        raise HostNotAllowedError("Origin", page or origin)


def _name(authority: str) -> str:
    """Of `name:port` or `[address]:port`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.partition(":")[0].lower().removesuffix(".")


@lru_cache(maxsize=256)
def _is_local(name: str, allowed: tuple[str, ...]) -> bool:
    if name == "localhost" or name in allowed:
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
