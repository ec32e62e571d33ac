"""A form of labelled text fields that is filled without the mouse and shows its consequence while one types."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from tui.screens import FOLDER
from tui.screens.room import Room
from tui.widgets.entry import Entry


class Field(NamedTuple):
    key: str
    label: str
    value: str = ""
    hint: str = ""


class Form(Room):
    """Enter and tab go on to the next field, shift+tab back; enter in the last one and ctrl+s anywhere send. Esc leaves
    the field and then the form."""

    CSS_PATH: ClassVar = [*Room.CSS_PATH, FOLDER / "form.tcss"]
    BINDINGS: ClassVar = [
        Binding("ctrl+s", "send", "Send", show=False),
        Binding("escape", "back", "Back", show=False),
        Binding("pagedown", "page(1)", "Further down", show=False),
        Binding("pageup", "page(-1)", "Further up", show=False),
    ]
    HEADLINE: ClassVar[str] = ""
    REPLACED: ClassVar[bool] = False
    """What is typed first into a field takes the place of what it had to begin with."""
    SENDS: ClassVar[str] = "Save"
    """What sending does, in a word or two."""

    def fields(self) -> list[Field]:
        return []

    def fill(self) -> ComposeResult:
        with VerticalScroll(can_focus=False):
            yield Static(self.HEADLINE, markup=False)
            for field in self.fields():
                with Horizontal():
                    yield Static(field.label, classes="label", markup=False)
                    yield Entry(field.value, hint=field.hint, id=f"field-{field.key}", replaced=self.REPLACED)
            yield Static("", id="consequence", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query(Input).first().focus()
        self.weigh()

    def keys(self) -> list[tuple[str, bool]]:
        if self.field() is None:
            words = ["tab Fields", f"ctrl+s {self.SENDS}", "esc Close"]
        else:
            enter = f"enter {self.SENDS}" if self.focused is self._last() else "enter Next field"
            before = ["shift+tab Field before"] if self.focused is not self.query(Input).first() else []
            words = [enter, f"ctrl+s {self.SENDS}", *before, "esc Leave the field"]
        return [(each, True) for each in [*words, *(["pgdn pgup Scroll"] if self._longer() else [])]]

    def _longer(self) -> bool:
        """There is more than the terminal has lines for."""
        return any(box.max_scroll_y > 0 for box in self.query(VerticalScroll))

    def action_page(self, pages: int) -> None:
        for box in self.query(VerticalScroll):
            box.scroll_relative(y=pages * max(1, box.size.height - 1), animate=False, immediate=True)

    def whole(self) -> str:
        return "\n\n".join(filter(None, (super().whole(), str(self.query_one("#consequence", Static).content))))

    def _last(self) -> Input:
        return self.query(Input).last()

    def value(self, key: str) -> str:
        return self.query_one(f"#field-{key}", Input).value.strip()

    def show(self, words: str) -> None:
        """Say what sending would do."""
        self.query_one("#consequence", Static).update(self.drawn(words))
        self.call_after_refresh(self.mind_keys)  # it may be longer than the terminal now

    def drawn(self, words: str) -> str | Content:
        """How that is drawn."""
        return words

    def weigh(self) -> None:
        """Work out the consequence; called after each edit."""

    def on_input_changed(self, event: Any) -> None:
        self.weigh()

    def on_input_submitted(self, event: Any) -> None:
        if event.input is self._last():
            self.action_send()
        else:
            self.focus_next(Input)

    def action_send(self) -> None:
        """Do it."""

    def action_back(self) -> None:
        if isinstance(self.focused, Input):
            self.set_focus(None)
        else:
            self.app.pop_screen()
