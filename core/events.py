"""What happened, in order: a bounded ring that services publish to and that any number of readers follow.

Memory is the ring's alone: a reader holds a position, not a queue, so one that reads too slowly falls off the
tail and is told to `resync`. Ids are `epoch.seq`; the epoch is the daemon's start, so that an id of an earlier
daemon is recognised and answered with `resync` too.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from typing import Any

import msgspec

from core.nouns import Event

RING = 4096
"""Events kept; at 20 replicas a console may be away for some three minutes and miss nothing."""
BATCH = 256
"""Events that a reader holds at most while it writes them: one that stands still keeps no more than these."""


class Bus:
    """Publish from the event loop's thread; follow from any number of tasks of the same loop."""

    def __init__(self, *, ring: int = RING, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._epoch = f"{int(clock() * 1000):x}"
        self._seq = 0
        self._ring: deque[Event] = deque(maxlen=ring)
        self._news = asyncio.Event()
        self._closed = False

    @property
    def last(self) -> str:
        """Id of the newest event."""
        return f"{self._epoch}.{self._seq}"

    def publish(self, type: str, object: str, data: Any = None, *, to: str = "") -> Event:
        """Append an event; `data` is a noun or plain data and becomes its JSON form. `to`: for this user alone."""
        self._seq += 1
        plain = msgspec.to_builtins(data)
        event = Event(id=self.last, type=type, object=object, time=self._clock(), data=plain, to=to)
        self._ring.append(event)
        self._news.set()
        return event

    def close(self) -> None:
        """End all followers."""
        self._closed = True
        self._news.set()

    def position(self, since: str | None) -> int | None:
        """The seq after which to read for `since` (an id; None: from now on), or None if events are lost."""
        if since is None:
            return self._seq
        epoch, _, text = since.partition(".")
        if epoch != self._epoch or not text.isdecimal() or len(text) > 19:
            return None
        seq = int(text)
        oldest = self._seq - len(self._ring)
        return seq if oldest <= seq <= self._seq else None

    async def follow(self, since: str | None = None, *, idle_s: float | None = None) -> AsyncGenerator[list[Event]]:
        """Batches of events after `since`, until the bus closes. A batch of one `resync` means that events were lost:
        read the picture anew and go on with what follows. An empty batch: nothing happened for `idle_s` seconds."""
        at = self.position(since)
        while not self._closed:
            if at is None or at < self._seq - len(self._ring):
                at = self._seq
                yield [Event(id=self.last, type="resync", object="", time=self._clock())]
            elif at == self._seq:
                self._news.clear()
                try:
                    async with asyncio.timeout(idle_s):
                        await self._news.wait()
                except TimeoutError:
                    yield []
            else:
                first = len(self._ring) - (self._seq - at)
                batch = list(islice(self._ring, first, first + BATCH))
                at += len(batch)
                yield batch
