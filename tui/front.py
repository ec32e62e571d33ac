"""What a screen may ask of the App it stands in: screens know this and not the App, which knows the screens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from tui.errands import Errands
from tui.state import State


class Front(Protocol):
    """The App as its screens see it."""

    state: State
    client: Any
    """The connection to the daemon (core.client.Client); None while there is none."""
    errands: Errands
    """What it sees to whichever screen is in front."""
    ascii: bool
    """Draw nothing but ASCII."""

    def act(self, work: Callable[[Any], Awaitable[Any]], then: Callable[[Any], object] | None = None) -> None:
        """Ask the daemon beside the drawing; an error is shown at the foot of the screen, `then` gets the answer."""

    def go(self, mode: str, row: str = "", action: str = "", say: str = "") -> None:
        """Open screen `mode`, put its cursor on `row`, and do `action` there as its key would."""

    def action_whole(self) -> None:
        """Show all of what is cut off on the screen in front."""
