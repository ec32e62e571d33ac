"""A form whose consequence the daemon works out while one types."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from textual.timer import Timer

from core.errors import CorralError
from tui.plain import plain
from tui.spoken import spoken
from tui.widgets.form import Form

TYPING_PAUSE = 0.15
"""Seconds without a key before the daemon is asked."""


class Asking(Form):
    """A form whose consequence the daemon works out while one types."""

    PAUSE: ClassVar[float] = TYPING_PAUSE
    """Seconds without a key before it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self._timer: Timer | None = None

    def weigh(self) -> None:
        if self._timer is not None:
            self._timer.stop()
        self._timer = self.set_timer(self.PAUSE, self._ask)

    def _ask(self) -> None:
        try:
            work = self.question()
        except ValueError as error:
            self.show(plain(error))
            return
        if self.corral.client is None:
            self.show("What it would mean needs the daemon, which does not answer now")
            return
        self.run_worker(self._answer(work), group="asking", exclusive=True)

    async def _answer(self, work: Callable[[Any], Awaitable[str]]) -> None:
        try:
            self.show(plain(await work(self.corral.client)))
        except (CorralError, OSError, TimeoutError) as error:
            self.show(plain(spoken(error)))

    def question(self) -> Callable[[Any], Awaitable[str]]:
        """What to ask for what is typed; raises ValueError with what is wrong or missing."""
        raise NotImplementedError
