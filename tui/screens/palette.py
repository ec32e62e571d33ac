"""Every action by its words: type a part, enter does it."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input

from tui.keymap import EVERYWHERE, FROM_ANYWHERE, Key
from tui.screens.room import FOLDER
from tui.widgets.entry import Entry
from tui.widgets.table import Column, Row, Table


class Palette(ModalScreen[str]):
    """The answer is the chosen action, None after esc. `choices` are the keys of the screen behind, each with the
    reason why it does nothing now."""

    CSS_PATH: ClassVar = [FOLDER / "dialogs.tcss"]
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", show=False),
        Binding("down", "move(1)", show=False, priority=True),
        Binding("up", "move(-1)", show=False, priority=True),
    ]

    def __init__(self, choices: list[tuple[Key, str]]) -> None:
        super().__init__()
        everywhere = [(key, "") for key in (*EVERYWHERE, *FROM_ANYWHERE) if key.action != "palette"]
        self.choices: dict[str, tuple[Key, str]] = {}
        for key, why in (*choices, *everywhere):
            self.choices.setdefault(key.action, (key, why))

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Entry(hint="action")
            yield Table(
                [Column("action", 20, fit=True), Column("key", 14), Column("not now", 10, 1, flex=True)],
                empty="No action has these words",
            )

    def on_mount(self) -> None:
        self.query_one(Table).set_rows(
            [Row(action, (key.words, key.shown, why), bool(why)) for action, (key, why) in self.choices.items()]
        )
        self.query_one(Input).focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        self.query_one(Table).filter(event.value)

    def action_move(self, by: int) -> None:
        table = self.query_one(Table)
        table.move(table.cursor + by)

    def on_input_submitted(self) -> None:
        self.dismiss(self.query_one(Table).key or None)

    def on_table_opened(self, event: Table.Opened) -> None:
        self.dismiss(event.key)
