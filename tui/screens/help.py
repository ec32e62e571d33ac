"""The keys of the screen behind it and of everywhere."""

from __future__ import annotations

from textual.app import ComposeResult

from tui.keymap import ASK, EVERYWHERE, FROM_ANYWHERE, TABLE, WRITE, Key
from tui.screens.room import Line, Note, Room
from tui.widgets.table import Column, Row, Table


class Help(Room):
    """`choices` are the keys of the screen behind, each with the reason why it does nothing now. Esc goes back."""

    ROOM = "help"

    def __init__(self, room: str, choices: list[tuple[Key, str]]) -> None:
        super().__init__()
        self.room = room
        field = (*WRITE, *ASK) if room == "chat" else ()
        self.keys_shown = [*choices, *((key, "") for key in (*field, *TABLE, *EVERYWHERE, *FROM_ANYWHERE))]

    def fill(self) -> ComposeResult:
        yield Line(f"Keys of {self.room or 'this screen'} first. In a text field keys are text: esc leaves it")
        yield Table(
            [
                Column("key", 12, fit=True), Column("does", 24, fit=True), Column("where", 12, 2, fit=True),
                Column("not now", 20, 1, flex=True),
            ],
            id="keytable",
        )  # fmt: skip
        yield Note(id="why")

    def on_table_moved(self, event: Table.Moved) -> None:
        super().on_table_moved(event)
        self._tell()

    def _tell(self) -> None:
        """Why the key under the cursor does nothing now: its column is narrow."""
        key = self.table().key
        why = self.keys_shown[int(key)][1] if key else ""
        self.query_one("#why", Note).set(f"-- not now: {why}" if why else "")

    def keys(self) -> list[tuple[str, bool]]:
        return [("j, k Move", True), ("esc Back", True)]

    def draw(self, kinds: set[str]) -> None:
        self.table().set_rows(
            [Row(str(n), (k.shown, k.words, k.where, why), bool(why)) for n, (k, why) in enumerate(self.keys_shown)]
        )
        self._tell()
