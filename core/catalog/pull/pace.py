"""A cap on bytes a second, shared or a pull's own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable


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
