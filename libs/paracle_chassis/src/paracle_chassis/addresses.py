"""Which addresses are the internet's, and which may give away what a machine keeps to itself."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final

_NAT64: Final = ip_network("64:ff9b::/96")
_METADATA: Final = frozenset({"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16"})


def is_public(address: str) -> bool:
    """Whether `address` is reachable on the internet and nothing else; IPv4 inside IPv6 is judged as IPv4."""
    found = ip_address(address.partition("%")[0])
    inner = _embedded(found) if isinstance(found, IPv6Address) else None
    judged: IPv4Address | IPv6Address = inner or found
    return judged.is_global and not (judged.is_multicast or judged.is_reserved or _is_site_local(judged))


def is_guarded(address: str) -> bool:
    """Whether a name may not lead to `address` even in private networks: machines give their credentials away there."""
    found = ip_address(address.partition("%")[0])
    inner = _embedded(found) if isinstance(found, IPv6Address) else None
    judged: IPv4Address | IPv6Address = inner or found
    return judged.is_link_local or judged.is_multicast or judged.is_unspecified or str(judged) in _METADATA


def is_address(host: str) -> bool:
    """Whether `host` is an address, and no name."""
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _is_site_local(address: IPv4Address | IPv6Address) -> bool:
    return isinstance(address, IPv6Address) and address.is_site_local


def _embedded(address: IPv6Address) -> IPv4Address | None:
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else None)
