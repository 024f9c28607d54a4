"""Which addresses a webhook may reach: public ones, and what its settings allow. Asked for each connection, about the
address that it goes to, so that a name which resolves to something else than yesterday gets no further.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Any

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
NAT64_LOCAL = ipaddress.IPv6Network("64:ff9b:1::/48")  # packs whatever its network's owner likes


class AddressRefused(OSError):
    """The connection would go to an address that is neither public nor allowed."""


def parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    """CIDR texts as networks. Raises ValueError."""
    return tuple(ipaddress.ip_network(text) for text in texts)


def is_allowed(text: str, allowed: Sequence[Network]) -> bool:
    """Whether a connection may go to this address. An IPv6 address that carries an IPv4 one is judged as that one, too."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return False
    return all(_is_public(one) or _is_in(one, allowed) for one in _meant_by(address)) or _is_in(address, allowed)


def _meant_by(address: Address) -> list[Address]:
    """The address and the IPv4 addresses packed into it (mapped, NAT64, 6to4, Teredo)."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return [address.ipv4_mapped]  # the same socket address in another spelling
        if address in NAT64:
            return [ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)]  # the way to it
        if address.sixtofour is not None:
            found.append(address.sixtofour)
        if address.teredo is not None:
            found += address.teredo
    return found


def _is_public(address: Address) -> bool:
    local = address.is_multicast or address.is_reserved or address in NAT64_LOCAL
    return address.is_global and not local


def _is_in(address: Address, allowed: Sequence[Network]) -> bool:
    return any(address.version == network.version and address in network for network in allowed)


def guarded_sockets(allowed: Sequence[Network]) -> Callable[[Any], socket.socket]:
    """Makes the socket of a connection to a resolved address; AddressRefused instead, when it must not be reached."""

    def make(address_info: tuple[Any, ...]) -> socket.socket:
        family, kind, protocol, _, address = address_info
        if not is_allowed(str(address[0]), allowed):
            raise AddressRefused(
                errno.EACCES, f"{address[0]} is not a public address, and allowed_networks does not name it"
            )
        return socket.socket(family, kind, protocol)

    return make
