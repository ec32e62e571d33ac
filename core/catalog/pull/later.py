"""What a full disk or a slow directory kept from being done, tried again by itself with growing pauses."""

from __future__ import annotations

import time
from collections.abc import Callable

PAUSES_S = (2.0, 5.0, 15.0, 60.0, 300.0)
"""Between two tries; the last one again and again."""


class Later:
    """Ids of pulls. Whoever looks (`due`) tries those that it gives, and puts back what failed once more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._tries: dict[str, int] = {}
        self._at: dict[str, float] = {}

    def put(self, id: str) -> None:
        tries = self._tries.get(id, 0)
        self._tries[id] = tries + 1
        self._at[id] = self._clock() + PAUSES_S[min(tries, len(PAUSES_S) - 1)]

    def due(self) -> list[str]:
        """Those whose pause is over, each once."""
        found = [id for id, at in self._at.items() if at <= self._clock()]
        for id in found:
            del self._at[id]
        return found

    def drop(self, id: str) -> None:
        """It is done, or somebody has said what becomes of it."""
        self._tries.pop(id, None)
        self._at.pop(id, None)
