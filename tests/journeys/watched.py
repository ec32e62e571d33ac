"""A console over the real daemon, and its screen as text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tui.app import Corral
from tui.underway import Job, jobs


class Console:
    """A console under test, and its screen as text."""

    def __init__(self, app: Corral) -> None:
        self.app = app

    @property
    def text(self) -> str:
        return "\n".join("".join(s.text for s in strip) for strip in self.app.screen._compositor.render_strips())

    async def until(self, true: str | Callable[[], object]) -> None:
        """Wait until `true()`, or until these words stand on the screen, however they are wrapped."""
        for _ in range(600):
            if true in " ".join(self.text.split()) if isinstance(true, str) else true():
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"never: {true}\n{self.text}")

    def jobs(self) -> list[Job]:
        """What is under way, as this console knows it."""
        return jobs(self.app.state)

    async def opened(self, screen: type) -> None:
        await self.until(lambda: isinstance(self.app.screen, screen))
