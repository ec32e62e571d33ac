"""Where programs reach the gateway: addresses as corral.toml names them, and which of them speak TLS."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

import msgspec

_FORM = re.compile(r"(?:(https?)://)?(\[[0-9A-Fa-f:.]+\]|[0-9.]+):([0-9]{1,5})/?")
MOST = 16
"""Addresses at a time."""
EXAMPLE = '"127.0.0.1:8620", or "[::1]:8620" and "https://0.0.0.0:8620" in a list'


class Listen(msgspec.Struct, frozen=True):
    """One address. `address` is `127.0.0.1:8620` or `[::1]:8620`."""

    address: str
    tls: bool = False


def split(address: str) -> tuple[str, int]:
    """Host (without brackets) and port of `Listen.address`."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def listens(texts: Iterable[str], *, plain: bool) -> tuple[Listen, ...]:
    """The addresses that `texts` name. One without `http://` or `https://` before it is plain on loopback, and
    elsewhere speaks TLS unless `plain` (the user has said in words what that means). Raises ValueError with what is
    wrong, among it plain HTTP on the network that nobody has agreed to."""
    found: list[Listen] = []
    for text in texts:
        form = _FORM.fullmatch(text)
        if form is None:
            raise ValueError(f"{text!r} is no address with a port")
        scheme, host, port = form.groups()
        address = ipaddress.ip_address(host.strip("[]"))
        if not 1 <= int(port) <= 65535:
            raise ValueError(f"{port} is no port")
        if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
            raise ValueError(f"{address} is an IPv4 address: write it as one")
        named = f"[{address}]:{int(port)}" if address.version == 6 else f"{address}:{int(port)}"
        here = address.is_loopback
        if scheme == "http" and not here and not plain:
            raise ValueError(f"{text} is plain HTTP on the network")
        listen = Listen(named, tls=scheme == "https" or (scheme is None and not here and not plain))
        if named in [each.address for each in found]:
            raise ValueError(f"{named} is named twice")
        found.append(listen)
    if len(found) > MOST:
        raise ValueError(f"{len(found)} addresses are more than {MOST}")
    return tuple(found)
