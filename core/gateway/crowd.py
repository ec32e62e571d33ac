"""How many connections there are of each key. O(1)."""

from __future__ import annotations

import ipaddress


class Crowd:
    """Counts by name."""

    def __init__(self) -> None:
        self._there: dict[str, int] = {}

    def enter(self, name: str, most: int) -> bool:
        """Count one more; False, and nothing is counted, if `most` are there."""
        there = self._there.get(name, 0)
        if there >= most:
            return False
        self._there[name] = there + 1
        return True

    def leave(self, name: str) -> None:
        """One that `enter` let in has gone."""
        left = self._there[name] - 1
        if left:
            self._there[name] = left
        else:
            del self._there[name]

    def __len__(self) -> int:
        return len(self._there)


def place(address: str) -> str:
    """Under which name an address is counted: of IPv6 a /64, which one host has for itself."""
    if ":" not in address:
        return address
    found = ipaddress.IPv6Address(address.partition("%")[0])
    return str(ipaddress.IPv6Address(int(found) >> 64 << 64)) + "/64"
