"""A text field of some lines in which enter sends: ctrl+j makes a line, up and down reach what was asked before."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding
from textual.message import Message
from textual.widgets import TextArea

from tui.plain import plain

LINES = 5
"""As high as it grows."""


class Question(TextArea):
    """`hint` stands there while it is empty. `asked` is what was asked before, oldest first."""

    DEFAULT_CSS = f"""
    Question {{ height: auto; max-height: {LINES}; min-height: 1; border: none; padding: 0; }}
    Question:focus {{ border: none; }}
    Question.colourless .text-area--cursor {{ text-style: reverse; }}
    """
    BINDINGS: ClassVar = [Binding("ctrl+j,alt+enter,shift+enter", "new_line", "New line", show=False)]

    class Sent(Message):
        """Enter. The text stays until who takes it clears it."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, *, hint: str = "", id: str | None = None) -> None:
        super().__init__(id=id, compact=True, placeholder=hint, highlight_cursor_line=False)
        self.cursor_blink = False
        self.asked: list[str] = []
        self._back = 0
        """How many questions back the text is from, 0 for a new one."""
        self._draft = ""

    def on_mount(self) -> None:
        self.set_class(getattr(self.app, "colourless", False), "colourless")  # the cursor is a colour otherwise

    @property
    def value(self) -> str:
        return self.text

    @value.setter
    def value(self, text: str) -> None:
        self._back = 0
        self._put(text)

    def _put(self, text: str) -> None:
        self.text = plain(text)
        self.move_cursor(self.document.end)

    def on_key(self, event: events.Key) -> None:
        if event.key == "enter":
            event.stop()
            event.prevent_default()
            self.post_message(self.Sent(self.text))

    def on_paste(self, event: events.Paste) -> None:
        """What is pasted keeps its lines and sends nothing; terminals say a carriage return for a line's end."""
        event.stop()
        event.prevent_default()
        self.replace(plain(event.text.replace("\r\n", "\n").replace("\r", "\n")), *self.selection)
        self.scroll_cursor_visible()

    def action_new_line(self) -> None:
        self.replace("\n", *self.selection)

    def action_cursor_up(self, select: bool = False) -> None:
        if select or not self.navigator.is_first_wrapped_line(self.cursor_location):
            super().action_cursor_up(select)
        else:
            self._recall(self._back + 1)

    def action_cursor_down(self, select: bool = False) -> None:
        if select or not self.navigator.is_last_wrapped_line(self.cursor_location):
            super().action_cursor_down(select)
        else:
            self._recall(self._back - 1)

    def _recall(self, back: int) -> None:
        """Show the question `back` ago, at 0 what was being written."""
        if not 0 <= back <= len(self.asked):
            return
        if not self._back:
            self._draft = self.text
        self._back = back
        self._put(self.asked[-back] if back else self._draft)
