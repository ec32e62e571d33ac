"""One look a second at the host and at every launch, kept in memory, read by all.

The sampler asks nobody by name: the composition root gives it a `Source` (the node) and a `Sink` (who shows the
figures), so that it stands below both.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from core.errors import CorralError
from core.events import Bus
from core.nouns import NodeSample, ProcessSample
from core.settings import SamplesTable

log = logging.getLogger(__name__)

LOOK_S = 30.0
"""How long one look may take."""
MEASURED_S = 1.0
"""Who asks for PSS more often gets what there is."""


class Source(Protocol):
    """The host, as far as sampling needs it (`core.nodes.base.Node` fits)."""

    name: str

    async def sample(self) -> NodeSample: ...

    async def samples(self, launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]: ...


class Sampler:
    """Samples one host each `every_s`; PSS each `pss_every_s` because it costs 4-5 ms a replica."""

    def __init__(
        self,
        source: Source,
        bus: Bus,
        table: Callable[[], SamplesTable],
        *,
        launches: Callable[[], Sequence[str]],
        sink: Callable[[Sequence[ProcessSample]], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._bus = bus
        self._table = table
        self._launches = launches
        self._sink = sink
        self._clock = clock
        self._ring: deque[NodeSample] = deque()
        self._pss_at = float("-inf")
        self._said = ""
        self._changed = asyncio.Event()

    @property
    def last(self) -> NodeSample | None:
        return self._ring[-1] if self._ring else None

    def since(self, seconds: float) -> list[NodeSample]:
        """The samples of the last `seconds`, oldest first."""
        if not self._ring:
            return []
        start = self._ring[-1].time - seconds
        return [sample for sample in self._ring if sample.time >= start]

    async def look(self) -> None:
        """Take one sample of everything and hand it on."""
        node = await self._source.sample()
        self._ring.append(node)
        while len(self._ring) > self._table().keep:
            self._ring.popleft()
        self._bus.publish("sample", f"node:{node.node}", node)
        launches = self._launches()
        if not launches:
            return
        pss = self._clock() - self._pss_at >= self._table().pss_every_s
        if pss:
            self._pss_at = self._clock()
        await self._sink(await self._source.samples(launches, pss=pss))

    async def try_look(self) -> None:
        """`look`; a host that cannot be read is said once."""
        try:
            async with asyncio.timeout(LOOK_S):
                await self.look()
            self._said = ""
        except (CorralError, OSError, TimeoutError) as error:
            if str(error) != self._said:
                self._said = str(error)
                log.warning("no sample of %s: %s", self._source.name, error)

    async def measure(self) -> None:
        """Measure PSS now, for somebody who asks; what was measured within the last second is good enough."""
        launches = self._launches()
        if launches and self._clock() - self._pss_at >= MEASURED_S:
            self._pss_at = self._clock()
            await self._sink(await self._source.samples(launches, pss=True))

    async def run(self) -> None:
        """Sample until cancelled."""
        while True:
            started = self._clock()
            await self.try_look()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.05, self._table().every_s - (self._clock() - started))):
                    await self._changed.wait()

    def touch(self) -> None:
        """The settings have changed: the pause that was begun with the old ones ends."""
        self._changed.set()
