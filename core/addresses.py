"""What a host's name means now, and which addresses are the internet's own: to others (loopback, private, link-local:
the host's neighbours, a cloud's metadata) nobody is let without a permission of its own."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence

Look = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host's name. Raises OSError."""


async def look_up(host: str, port: int) -> Sequence[str]:
    """By the host's own resolver."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def public(address: str) -> bool:
    """Whether it is an address of the internet's own. What cannot be read is none."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour or (found.teredo[1] if found.teredo else None)
        if found in ipaddress.ip_network("64:ff9b::/96"):
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        if inner is not None:
            return public(str(inner))
    return found.is_global and not found.is_multicast
