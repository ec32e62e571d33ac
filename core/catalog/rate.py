"""How fast something on its way goes: bytes a second of late, and the time that the rest takes at that."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

SPAN_S = 10.0
"""Over which a rate is taken."""


class Rate:
    """Bytes a second of late."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    def saw(self, done: int) -> None:
        """So many bytes are there now."""
        now = self._clock()
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # it began anew
        self._seen.append((now, done))
        while len(self._seen) > 2 and now - self._seen[1][0] > SPAN_S:
            self._seen.popleft()

    @property
    def now(self) -> float:
        if len(self._seen) < 2:
            return 0.0
        (first, before), (last, after) = self._seen[0], self._seen[-1]
        return (after - before) / (last - first) if last > first else 0.0
