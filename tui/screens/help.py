"""The keys of the screen behind it and of everywhere."""

from __future__ import annotations

from textual.app import ComposeResult

from tui.keymap import EVERYWHERE, FROM_ANYWHERE, ROOMS, TABLE, Key
from tui.screens.room import Line, Room
from tui.widgets.table import Column, Row, Table


def rows(room: str) -> list[Key]:
    """The keys that work in `room`."""
    return [*ROOMS.get(room, ()), *TABLE, *EVERYWHERE, *FROM_ANYWHERE]


class Help(Room):
    """Esc goes back."""

    ROOM = "help"

    def __init__(self, room: str) -> None:
        super().__init__()
        self.room = room

    def fill(self) -> ComposeResult:
        yield Line(f"Keys of {self.room or 'this screen'} first. In a text field keys are text: esc leaves it")
        yield Table([Column("key", 16), Column("does", 24, flex=True), Column("where", 14, 1)], id="keytable")

    def draw(self, kinds: set[str]) -> None:
        names = {"question_mark": "?", "colon": ":", "slash": "/"}
        self.table().set_rows(
            [Row(str(n), (names.get(k.keys, k.keys), k.words, k.where)) for n, k in enumerate(rows(self.room))]
        )
