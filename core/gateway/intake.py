"""Bodies that are on their way: how many bytes of them there are, of all and of each caller. O(1).

One caller has at most as much as is left for all: alone that is half, and however many have filled theirs, whoever
comes next still finds as much room as each of them.
"""

from __future__ import annotations

from core.gateway import wire
from core.gateway.errors import Refusal

FREE_BYTES = 64 << 10
"""A body up to this size is taken before anybody is asked whether it may be asked: its refusal costs no connection."""


class Intake:
    """Counts bytes by caller."""

    def __init__(self) -> None:
        self.bytes = 0
        self._theirs: dict[str, int] = {}

    def take(self, caller: str, own: int, more: int, limits: wire.GatewayLimits, *, ahead: int = 0) -> None:
        """Count `more` bytes of a body of which `own` are counted. Raises `Refusal`, and counts nothing, where there is
        no room for them, and for `ahead` bytes that are announced behind them."""
        theirs, most = self._theirs.get(caller, 0), room(limits)
        if theirs + more + ahead > most - self.bytes - more - ahead:
            raise _full(caller, theirs - own, self.bytes, most)
        if more:
            self.bytes += more
            self._theirs[caller] = theirs + more

    def leave(self, caller: str, own: int) -> None:
        """A body is whole, or its client has gone."""
        self.bytes -= own
        left = self._theirs[caller] - own
        if left:
            self._theirs[caller] = left
        else:
            del self._theirs[caller]

    def __len__(self) -> int:
        return len(self._theirs)


def room(limits: wire.GatewayLimits) -> int:
    """Bytes for the bodies of all: one of the largest has room, alone."""
    return max(limits.bodies_bytes, 2 * limits.body_bytes)


def _full(caller: str, others: int, all: int, most: int) -> Refusal:
    again = b"Retry-After: 1\r\n"
    if not others:
        why = f"{_mib(all)} of request bodies are on their way, of {_mib(most)} for all (gateway.bodies_bytes)"
        return Refusal(503, f"{why}: come again in a moment", "bodies_full", headers=again)
    why = f"{caller} has {_mib(others)} of other request bodies on their way, and has at most as much as is left"
    return Refusal(
        429, f"{why} of {_mib(most)} for all (gateway.bodies_bytes): send them one after the other", "too_many_bytes",
        headers=again,
    )  # fmt: skip


def _mib(bytes: int) -> str:
    return f"{bytes / (1 << 20):.1f} MiB"
