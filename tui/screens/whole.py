"""A text that had no room where it stands, whole."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widgets import Static

from tui.plain import plain
from tui.screens.room import Room
from tui.widgets.scroll import Scroll


class Whole(Room):
    """Scrolls; `y` copies it. `text` may be from anywhere."""

    ROOM = "whole"

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = plain(text)

    def fill(self) -> ComposeResult:
        with Scroll():
            yield Static(self.text, id="text", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Scroll).focus()

    def set(self, text: str) -> None:
        self.text = plain(text)
        self.query_one("#text", Static).update(self.text)

    def whole(self) -> str:
        return self.text

    def copied(self) -> str:
        return self.text
