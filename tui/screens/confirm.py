"""Asks once; what destroys data asks for the name to be typed."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tui.plain import line
from tui.screens.room import FOLDER
from tui.widgets.entry import Entry


class Confirm(ModalScreen[bool]):
    """`y` or enter says yes, `n` or esc no. With `typed`, only that word and enter say yes."""

    CSS_PATH: ClassVar = [FOLDER / "dialogs.tcss"]
    BINDINGS: ClassVar = [
        Binding("y,enter", "yes", show=False),
        Binding("n,escape", "dismiss(False)", show=False),
    ]

    def __init__(self, question: str, *, typed: str = "") -> None:
        super().__init__()
        self.question = line(question)
        self.typed = typed

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            if self.typed:
                yield Entry(hint=f"type {line(self.typed)} and enter")
            foot = "esc: no" if self.typed else "y: yes   n, esc: no"
            yield Static(foot, markup=False, id="foot")

    def action_yes(self) -> None:
        if not self.typed:
            self.dismiss(True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value == self.typed:
            self.dismiss(True)
        else:
            self.query_one("#foot", Static).update("That is not the name. esc: no")
