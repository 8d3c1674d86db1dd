"""Which addresses a webhook may be sent to: by kind, one of each that somebody could try."""

from ipaddress import ip_network

import pytest

from app.outbound.addresses import is_public, is_within, parse

PRIVATE = {
    "this host": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": ["127.0.0.1", "127.255.0.9", "::1"],
    "private": ["10.1.2.3", "172.16.0.1", "172.31.255.1", "192.168.1.1", "fc00::1", "fd12:3456::1"],
    "link-local": ["169.254.1.1", "fe80::1", "fe80::1%eth0"],
    "site-local, deprecated": ["fec0::1"],
    "carrier-grade NAT": ["100.64.0.1", "100.127.255.254"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "broadcast and reserved": ["255.255.255.255", "240.0.0.1", "100::1", "5f00::1"],
    "documentation and benchmarks": [
        "192.0.2.1",
        "198.51.100.7",
        "203.0.113.9",
        "198.18.0.1",
        "2001:db8::1",
        "3fff::1",
    ],
    "cloud metadata": ["169.254.169.254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "fd00:ec2::254"],
    "IPv4 in IPv6": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1"],
    "6to4": ["2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::", "192.88.99.1"],
    "NAT64": ["64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808"],
    "Teredo": ["2001::1", "2001:0:7f00:1::"],
}
PUBLIC = [
    "8.8.8.8",
    "1.1.1.1",
    "172.32.0.1",
    "100.128.0.1",
    "2606:4700::1111",
    "2001:4860:4860::8888",
    "::ffff:8.8.8.8",
    "2002:808:808::1",
    "64:ff9b::808:808",
]


@pytest.mark.parametrize(("kind", "address"), [(kind, each) for kind in PRIVATE for each in PRIVATE[kind]])
def test_is_not_on_the_internet(kind: str, address: str) -> None:
    assert not is_public(parse(address)), kind


@pytest.mark.parametrize("address", PUBLIC)
def test_is_on_the_internet(address: str) -> None:
    assert is_public(parse(address))


def test_a_network_that_is_allowed_is_allowed_in_every_spelling_and_no_other() -> None:
    allowed = [ip_network("10.0.0.0/8"), ip_network("fd00::/8")]
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1"):
        assert is_within(parse(address), allowed), address
    for address in ("11.0.0.1", "127.0.0.1", "::1", "::ffff:127.0.0.1"):
        assert not is_within(parse(address), allowed), address
