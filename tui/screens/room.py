"""What every screen has: the bar of screens with the connection, a notice line, and the keys at the foot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Static

from core.errors import CorralError
from core.nouns import Event
from tui.keymap import ROOMS, SCREENS
from tui.plain import line
from tui.widgets.table import Table
from tui.words import age, state

FOLDER = Path(__file__).parent
"""Where the style sheets lie, one beside each screen that has one."""

if TYPE_CHECKING:
    from core.client import Client
    from tui.app import Corral


class Line(Static):
    """One line of text from anywhere; writes only when it changes."""

    DEFAULT_CSS = "Line { height: 1; width: 1fr; text-wrap: nowrap; text-overflow: ellipsis; }"

    def __init__(self, text: str = "", *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(line(text), markup=False, id=id, classes=classes)
        self.text = text

    def set(self, text: str) -> None:
        text = line(text)
        if text != self.text:
            self.text = text
            self.update(text, layout=False)


class Room(Screen[Any]):
    """Base of the screens. `ROOM` is its name in the keymap; `fill` yields its body and `picture` redraws it."""

    ROOM: ClassVar[str] = ""
    CSS_PATH: ClassVar = [FOLDER / "room.tcss"]
    BINDINGS: ClassVar = [Binding("escape", "back", "Back", show=False)]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.BINDINGS = [
            *cls.__dict__.get("BINDINGS", []),
            *(Binding(k.keys, k.action, k.words, show=False) for k in ROOMS.get(cls.ROOM, ())),
        ]
        super().__init_subclass__(**kwargs)

    @property
    def corral(self) -> Corral:
        from tui.app import Corral

        assert isinstance(self.app, Corral)
        return self.app

    def confirmed(
        self,
        question: str,
        work: Callable[[Client], Awaitable[Any]],
        *,
        typed: str = "",
        then: Callable[[Any], object] | None = None,
    ) -> None:
        """Ask once before `work`; `typed` is what has to be typed for what cannot be undone."""
        from tui.screens.confirm import Confirm

        def answer(yes: bool | None) -> None:
            if yes:
                self.corral.act(work, then)

        self.app.push_screen(Confirm(question, typed=typed), answer)

    def fill(self) -> ComposeResult:
        yield from ()

    def compose(self) -> ComposeResult:
        yield Line(id="bar")
        yield from self.fill()
        yield Static("", id="notice", markup=False)
        yield Line(id="keys")

    def on_mount(self) -> None:
        self.query_one("#keys", Line).set(self.keys())
        self.head()
        self.draw({"all"})

    def on_screen_resume(self) -> None:
        self.picture({"all"})

    def keys(self) -> str:
        """The keys of this screen on one line."""
        names = {"slash": "/", "question_mark": "?"}
        words = [f"{names.get(k.keys, k.keys)} {k.words}" for k in ROOMS.get(self.ROOM, ())]
        left = " " + "  ".join(["? Help", ": Palette"])
        for each in words:
            if len(left) + 2 + len(each) > self.app.size.width:
                break
            left += "  " + each
        return left

    def head(self) -> None:
        """Draw the bar: screens and connection, with the age of a stale picture."""
        known = self.corral.state
        rooms = " ".join(
            f"[{d} {n.capitalize()}]" if n == self.ROOM else f" {d} {n.capitalize()} " for d, n in SCREENS.items()
        )
        link = state(known.connection, self.corral.ascii)
        if known.connection != "live" and known.seen_at:
            link += f", picture {age(known.seen_at, known.clock())} old"
        width = self.app.size.width
        self.query_one("#bar", Line).set(f"{rooms}".ljust(max(len(rooms) + 1, width - len(link) - 1)) + link)
        if known.connection != "live" and known.problem is not None:
            self.say(str(known.problem) or type(known.problem).__name__)

    def picture(self, kinds: set[str]) -> None:
        """Something of `kinds` changed."""
        if not self.is_mounted or not self.query("#bar"):
            return
        self.head()
        if "all" in kinds and self.corral.state.connection == "live":
            self.say("")
        self.draw(kinds)

    def draw(self, kinds: set[str]) -> None:
        """Redraw the body."""

    def happened(self, event: Event) -> None:
        """Every event, at once; for screens that follow one thing."""

    def say(self, words: str) -> None:
        """Show a sentence (what, why, what to do) above the keys, "" takes it away."""
        from tui.plain import plain

        notice = self.query_one("#notice", Static)
        notice.set_class(bool(words), "on")
        notice.update(plain(words))

    def refuse(self, error: CorralError) -> None:
        self.say(str(error))

    def table(self) -> Table:
        return self.query_one(Table)

    # ------------------------------------------------------------------ keys that mean the same everywhere

    async def action_filter(self) -> None:
        from textual.widgets import Input

        found = self.query("#needle")
        if found:
            box = found.first(Input)
        else:
            box = Input(placeholder="filter", id="needle")
            await self.mount(box, before="#notice")
        box.add_class("on")
        box.focus()

    def on_input_changed(self, event: Any) -> None:
        if event.input.id == "needle":
            self.table().filter(event.value)

    def on_input_submitted(self, event: Any) -> None:
        if event.input.id == "needle":
            self.table().focus()

    def action_back(self) -> None:
        from textual.widgets import Input

        for box in self.query("#needle.on").results(Input):
            box.value = ""
            box.remove_class("on")
            self.table().focus()
            return
        self.say("")
        if len(self.app.screen_stack) > 1:
            self.app.pop_screen()

    def action_copy(self) -> None:
        text = self.copied()
        if text:
            self.app.copy_to_clipboard(line(text))
            self.say(f"Copied: {line(text)[:60]}")

    def copied(self) -> str:
        """What `y` copies."""
        return self.table().key
