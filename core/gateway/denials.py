"""Who was turned away at the gateway, folded: the socket is open to everybody, and the audit trail is for ever."""

from __future__ import annotations

from core.gateway import wire

WINDOW_S = 60.0
"""The first denial of a uid or key for a reason is told at once, the rest of a window as one with their number."""
MOST = 64
"""Windows at a time; further uids and reasons are counted together."""


class Denials:
    """Counts denials until `due` tells them. Times are unix times."""

    def __init__(self) -> None:
        self._windows: dict[tuple[int, str, str], float] = {}
        """When each ends."""
        self._untold: dict[tuple[int, str, str], wire.Denied] = {}

    def note(self, uid: int, reason: str, now: float, key_id: str = "") -> None:
        """One request was turned away; `key_id`: with this key."""
        key = (uid, reason[:200], key_id)
        known = key in self._windows or key in self._untold
        if not known and max(len(self._windows), len(self._untold)) >= MOST:
            key = (wire.SEVERAL, "requests of further users, or for further reasons, were refused", "")
        there = self._untold.get(key)
        times, first = (there.times + 1, there.first) if there else (1, now)
        self._untold[key] = wire.Denied(uid=key[0], reason=key[1], times=times, first=first, last=now, key=key[2])

    def due(self, now: float, *, all: bool = False) -> tuple[wire.Denied, ...]:
        """What is to be told now (`all`: everything, at the gateway's end); it is forgotten here. A clock that was set
        back ends the windows."""
        self._windows = {key: ends for key, ends in self._windows.items() if now < ends <= now + WINDOW_S}
        keys = [key for key in self._untold if all or key not in self._windows]
        self._windows |= dict.fromkeys(keys, now + WINDOW_S)
        return tuple(self._untold.pop(key) for key in keys)
