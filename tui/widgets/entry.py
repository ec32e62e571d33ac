"""A text field whose cursor stands still: a blinking one writes 6,000 bytes a minute."""

from __future__ import annotations

from textual.widgets import Input


class Entry(Input):
    """`value` to begin with, `hint` while it is empty. `replaced`: what is typed first takes the place of the value."""

    DEFAULT_CSS = "Entry.colourless { .input--cursor, .input--selection { text-style: reverse; } }"

    def __init__(self, value: str = "", *, hint: str = "", id: str | None = None, replaced: bool = False) -> None:
        super().__init__(value, placeholder=hint, id=id, select_on_focus=replaced)
        self.cursor_blink = False

    def on_mount(self) -> None:
        self.set_class(getattr(self.app, "colourless", False), "colourless")  # the cursor is a colour otherwise
