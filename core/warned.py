"""What must be seen for as long as it lasts: gathered from whoever has a trouble, and said when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence

from core.audit import Audit
from core.deployments.doors import door_warnings
from core.deployments.gatewaylink import GatewayLink
from core.events import Bus
from core.starts import SAID_S

LOOK_S = 2.0
"""Between two looks at what is warned of."""

Source = Callable[[], Iterable[str]]
"""Sentences that hold now."""


class Warned:
    """The warnings of `corral status`, in the order of their sources, each once."""

    def __init__(self, bus: Bus, sources: Sequence[Source]) -> None:
        self._bus = bus
        self._sources = sources

    def now(self) -> tuple[str, ...]:
        """As sentences."""
        return tuple(dict.fromkeys(said for source in self._sources for said in source()))

    async def run(self) -> None:
        """Whoever draws the status reads it anew when a warning comes or goes."""
        told = self.now()
        while True:
            await asyncio.sleep(LOOK_S)
            if (now := self.now()) != told:
                told = now
                self._bus.publish("warning", "daemon:local", "what is warned of has changed: see `corral status`")


def at_first(sentence: str, clock: Callable[[], float] = time.monotonic) -> Source:
    """What a daemon that has lived for `SAID_S` does not say any more."""
    until = clock() + SAID_S
    return lambda: [sentence] if sentence and clock() < until else []


def of_the_chain(audit: Audit) -> Source:
    """That it does not verify."""

    def source() -> list[str]:
        chain = audit.status
        return [] if chain.ok else [f"the audit chain does not verify: {chain.message}; see `corral audit verify`"]

    return source


def of_the_gateway(link: GatewayLink, clock: Callable[[], float] = time.time) -> Source:
    """That programs do not reach it, or will not for long, or find it elsewhere than before, or that an address has all
    the connections that it may have."""

    def source() -> list[str]:
        troubles = [f"programs cannot reach the gateway: {link.trouble}"] if link.trouble else []
        return [
            *troubles, *door_warnings(link.status().doors, clock()), *link.doors.troubles(), *link.crowded.troubles(),
        ]  # fmt: skip

    return source
