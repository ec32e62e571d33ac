"""Asks once; what destroys data asks for the name to be typed. And asks which of some ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from tui.plain import line
from tui.screens import FOLDER
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
                yield Static(f"Type this and enter: {line(self.typed)}", markup=False, id="typed")
                yield Entry()
            foot = "esc: no" if self.typed else "y: yes   n, esc: no"
            yield Static(foot, markup=False, id="foot")

    def say(self, words: str) -> None:
        """Put a sentence at the foot."""
        self.query_one("#foot", Static).update(line(words))

    def action_yes(self) -> None:
        if not self.typed:
            self.dismiss(True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        if event.value == self.typed:
            self.dismiss(True)
        else:
            self.say("That is not the name. esc: no")


class Choice(ModalScreen[str]):
    """`choices` are keys with what they do; the answer is the key, "" after esc, which does `otherwise`."""

    CSS_PATH: ClassVar = [FOLDER / "dialogs.tcss"]
    BINDINGS: ClassVar = [Binding("escape", "dismiss('')", show=False)]

    def __init__(self, question: str, choices: Mapping[str, str], otherwise: str) -> None:
        super().__init__()
        self.question = line(question)
        self.choices = choices
        self.otherwise = otherwise

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Static(self.question, markup=False)
            ways = [f"{key:>3}: {line(words)}" for key, words in {**self.choices, "esc": self.otherwise}.items()]
            yield Static("\n".join(ways), markup=False, id="foot")

    def on_key(self, event: events.Key) -> None:
        if event.key in self.choices:
            event.stop()
            self.dismiss(event.key)
