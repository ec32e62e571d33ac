"""A form whose sending takes a while: meanwhile nothing is sent again; what was done is said where one came from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from core.errors import CorralError
from tui.spoken import spoken
from tui.widgets.form import Form


class Working(Form):
    """It stands before other kinds of form among the bases."""

    WORKS: ClassVar[str] = ""
    """What esc does while it works, as a key and words."""
    BACK: ClassVar[str] = "audit"
    """The screen that says what was done."""

    def __init__(self) -> None:
        super().__init__()
        self.working = False

    def work(self) -> Callable[[Any], Awaitable[str]]:
        """What to do with what is typed; its answer is said. Raises ValueError with what is wrong or missing."""
        raise NotImplementedError

    def weigh(self) -> None:
        if not self.working:
            super().weigh()

    def keys(self) -> list[tuple[str, bool]]:
        return [(self.WORKS, True)] if self.working else super().keys()

    def action_send(self) -> None:
        if self.working:
            return
        try:
            work = self.work()
        except ValueError as error:
            self.say(str(error))
            return
        if self.corral.client is None:
            self.say(f"Not done: {self.corral.state.away()}")
            return
        self.working = True
        self.set_focus(None)
        self.run_worker(self._do(work), group="work", exclusive=True, exit_on_error=True)

    async def _do(self, work: Callable[[Any], Awaitable[str]]) -> None:
        said = ""
        try:
            said = await work(self.corral.client)
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            if self.stands:
                self.say(spoken(error).replace(", or say --yes", ""))
        finally:
            self.working = False
            if self.stands:
                self.weigh()
                self.mind_keys()
        if said and self.stands:
            self.app.pop_screen()
            self.corral.go(self.BACK, say=said)
