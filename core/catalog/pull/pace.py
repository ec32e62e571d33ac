"""How fast: a cap on bytes a second, shared or a pull's own, and the rate that was seen."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

SPAN_S = 10.0
"""Over which a rate is taken."""


class Cap:
    """At most `rate()` bytes a second (0: no cap), for all who wait at it together."""

    def __init__(
        self, rate: Callable[[], int], *, clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._rate, self._clock, self._sleep = rate, clock, sleep
        self._free = 0.0
        """When what was let through is paid for."""

    async def take(self, count: int) -> None:
        """Wait until `count` bytes are within the cap. What comes at once after a pause is no more than a second's."""
        rate = self._rate()
        if rate <= 0:
            return
        now = self._clock()
        self._free = max(self._free, now) + count / rate
        if self._free > now:
            await self._sleep(self._free - now)


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
