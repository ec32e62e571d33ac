"""That an address has all the connections that it may have to the gateway: told each minute, and for a while after."""

from __future__ import annotations

import time
from collections.abc import Callable

from core.gateway import wire

FOLD_S = 60.0
SAID_S = 600.0
"""So long `corral status` warns of it after the last time."""


class Crowded:
    """Follows the gateway's counts. `most`: connections that an address may have."""

    def __init__(self, most: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._clock = clock
        self._known = 0, 0
        """What the gateway that runs has told so far, closed and refused."""
        self._untold = 0, 0
        self._told_at: float | None = None
        self._where = ""
        self._until = 0.0
        self.on_crowded: list[Callable[[str], object]] = []
        """Told of it in words."""

    def told(self, live: wire.Live) -> None:
        """The gateway says how it is."""
        now, counts = self._clock(), (live.evicted, live.refused)
        if counts[0] < self._known[0] or counts[1] < self._known[1]:
            self._known = 0, 0  # another gateway, that counts anew
        evicted, refused = (new - old for new, old in zip(counts, self._known, strict=True))
        self._known = counts
        if evicted or refused:
            self._untold = self._untold[0] + evicted, self._untold[1] + refused
            self._until, self._where = now + SAID_S, live.crowded
        if any(self._untold) and (self._told_at is None or now - self._told_at >= FOLD_S):
            evicted, refused = self._untold
            words = f"{self._full()}: {evicted} idle ones were closed for new ones, {refused} new ones refused"
            self._told_at, self._untold = now, (0, 0)
            for tell in self.on_crowded:
                tell(words)

    def troubles(self) -> list[str]:
        """A sentence while it is so."""
        if self._clock() >= self._until:
            return []
        return [
            f"{self._full()}: idle ones are closed for new ones, see `corral gateway`; `ss -tnp` as root names whose"
        ]

    def _full(self) -> str:
        return (
            f"{self._where} has all {self._most()} connections to the gateway that one address may have"
            " (gateway.connections_per_address)"
        )
