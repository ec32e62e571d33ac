"""Whether the gateway is there: it is asked again and again, since whoever is stopped keeps its socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from core.gateway import wire

log = logging.getLogger(__name__)

PING_S = 2.0
"""Between two questions whether it is there."""
SILENT_S = 5.0
"""Without an answer for so long, it is said to be not answering."""


class Silence:
    """Since when the gateway has not answered. `pid`: of its process, if that is known."""

    def __init__(self, pid: Callable[[], int | None]) -> None:
        self._pid = pid
        self._since = 0.0
        """On the loop's clock; 0: it answers."""

    @property
    def lasts(self) -> bool:
        """It does not answer."""
        return bool(self._since)

    @property
    def trouble(self) -> str:
        """Why it does not answer though it runs."""
        if self._since:
            seconds, pid = asyncio.get_running_loop().time() - self._since, self._pid()
            return (
                f"its process {pid} has not answered for {seconds:.0f} s: it is stopped (`kill -CONT {pid}` lets it go"
                " on) or has too much to do"
            )
        return ""

    def begin(self, since: float) -> None:
        """It has not answered what it was asked then (on the loop's clock)."""
        if not self._since:
            self._since = since
            log.warning("gateway: %s", self.trouble)

    def end(self) -> None:
        """It has answered."""
        self._since = 0.0

    async def watch(self, ask: Callable[[wire.Ask, str], Awaitable[wire.Report]]) -> None:
        """Ask it again and again whether it is there, and say so when it is not."""
        while True:
            await asyncio.sleep(PING_S)
            asked = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(SILENT_S):
                    await ask(wire.Ask(what="ping", request=""), "ping")
                self.end()
            except TimeoutError:
                self.begin(asked)
