"""Which addresses are on the public Internet. Everything else could be a machine that trusts this one.

`ipaddress.is_global` alone is not enough: it takes multicast, site-local and IPv4-compatible addresses for
global, and looks into no address that carries another one.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that was ever given out for use on the Internet (RFC 4291, 2.4)."""
_NAT64 = IPv6Network("64:ff9b::/96")
"""RFC 6052: the last 32 bits are the IPv4 address that is really talked to."""
_REFUSED: tuple[Network, ...] = (
    IPv4Network("0.0.0.0/8"),
    IPv4Network("100.64.0.0/10"),
    IPv4Network("192.0.0.0/24"),
    IPv4Network("192.88.99.0/24"),
    IPv4Network("168.63.129.16/32"),
    IPv6Network("2001::/23"),
    IPv6Network("2001:db8::/32"),
    IPv6Network("3fff::/20"),
)
"""Beside what `ipaddress` knows in every version: CGNAT (with Alibaba's metadata), protocol assignments (with
Oracle's metadata), 6to4 relays, Azure's host agent, Teredo, and documentation."""


def is_public(address: Address) -> bool:
    """True for a unicast address of the Internet, whose embedded address, if any, is one too."""
    if isinstance(address, IPv6Address):
        inner = _embedded(address)
        if inner is not None:
            return is_public(inner)
        if address not in _GLOBAL_UNICAST:
            return False
    is_odd = address.is_multicast or address.is_reserved or not address.is_global
    return not is_odd and not is_within(address, _REFUSED)


def is_within(address: Address, networks: Iterable[Network]) -> bool:
    """True when one of the networks holds the address; one that carries an IPv4 address counts as that."""
    inner = _embedded(address) if isinstance(address, IPv6Address) else None
    plain = inner or address
    return any(plain.version == network.version and plain in network for network in networks)


def parse(text: str) -> Address:
    """An address as the resolver gives it, with or without a zone."""
    return ip_address(text.partition("%")[0])


def _embedded(address: IPv6Address) -> IPv4Address | None:
    """The IPv4 address that packets to this one reach: IPv4-mapped, 6to4 or NAT64."""
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
