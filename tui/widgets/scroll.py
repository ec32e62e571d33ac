"""Text that is longer than the screen, moved with the keys that move in a table."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding
from textual.containers import VerticalScroll


class Scroll(VerticalScroll, can_focus=True):
    """j, k, g, G beside the arrows and page keys that Textual has."""

    BINDINGS: ClassVar = [
        Binding("j", "scroll_down", show=False),
        Binding("k", "scroll_up", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]
