"""What every screen has: the bar of screens with the connection, a notice line, and the keys at the foot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from textwrap import wrap
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding
from textual.screen import Screen
from textual.widgets import Static

from core.nouns import Event
from tui.keymap import ROOMS, SCREENS, Key
from tui.plain import line, plain
from tui.rights import lacks
from tui.screens import FOLDER
from tui.widgets.keyline import KeyLine
from tui.widgets.table import Table
from tui.words import age, state

if TYPE_CHECKING:
    from textual.widget import Widget

    from core.client import Client
    from tui.front import Front


NEWS_S = 15.0
"""How long a sentence stands that asks for nothing."""
LOW = 8
"""Lines under which a warning of the daemon is a mark in the bar, and the key `!`."""
MORE = "... (! shows all)"


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


class Note(Line):
    """A sentence that may take three lines."""

    DEFAULT_CSS = "Note { height: auto; max-height: 3; text-wrap: wrap; }"

    def __init__(self, text: str = "", *, id: str | None = None) -> None:
        super().__init__(text, id=id)
        self.display = bool(text)

    def set(self, text: str) -> None:
        text = line(text)
        if text != self.text:
            self.text = text
            self.display = bool(text)
            self.update(text)


class Room(Screen[Any]):
    """Base of the screens. `ROOM` is its name in the keymap; `fill` yields its body and `draw` redraws it."""

    ROOM: ClassVar[str] = ""
    ASKS: ClassVar[frozenset[str]] = frozenset()
    """Actions that ask the daemon."""
    CSS_PATH: ClassVar = [FOLDER / "room.tcss"]
    BINDINGS: ClassVar = [Binding("escape", "back", "Back", show=False)]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        cls.BINDINGS = [
            *cls.__dict__.get("BINDINGS", []),
            *(
                Binding(k.keys, f"do('{k.action}')", k.words, show=False, priority=k.priority)
                for k in ROOMS.get(cls.ROOM, ())
            ),
        ]
        super().__init_subclass__(**kwargs)

    def __init__(self) -> None:
        super().__init__()
        self._said = self._lost = ""

    @property
    def corral(self) -> Front:
        """The App, as far as a screen may know it."""
        return cast("Front", self.app)

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
        yield Note(id="health")
        yield from self.fill()
        yield Static("", id="notice", markup=False)
        yield KeyLine(id="keys")

    def on_mount(self) -> None:
        if not self.stands:
            return
        self.head()
        self.draw({"all"})
        self.mind_keys()

    def on_screen_resume(self, event: events.ScreenResume) -> None:
        event.refresh_styles = False  # 13-25 ms; themes don't change here, and each widget was styled when it was made
        self.picture({"all"})

    @property
    def stands(self) -> bool:
        """Its widgets are there: all of them, from its making until the program ends."""
        return self.app.is_running and bool(self.query("#keys"))

    def on_resize(self) -> None:
        if self.stands:
            self.head()
            self._show_notice()
            self.fold()

    def fold(self) -> None:
        """Show what there is room for."""

    # ------------------------------------------------------------------ keys, and which of them do nothing now

    def keys(self) -> list[tuple[str, bool]]:
        """What stands at the foot: keys with their words, and whether they may be pressed now."""
        field = self.field()
        if field is not None:
            return [(words, True) for words in self.field_keys(field)]
        here = [(f"{k.shown} {k.short or k.words}", not self.hindered(k.action)) for k in ROOMS.get(self.ROOM, ())]
        back = [] if self.ROOM in SCREENS.values() else [("esc Back", True)]
        return [("? Help", True), (": Palette", True), *here, *back]

    def field(self) -> Widget | None:
        """The text field that has the focus."""
        from textual.widgets import Input

        return self.focused if isinstance(self.focused, Input) else None

    def field_keys(self, field: Widget) -> list[str]:
        """Keys of a text field that has the focus."""
        return ["enter To the rows", "esc Clear the filter"]

    def hindered(self, action: str) -> str:
        """Why `action` can't be done now, as a sentence; "" where it can."""
        if action in self.ASKS and self.corral.client is None:
            return self.corral.state.away()
        if action == "copy" and not self.copied():
            return "There is nothing here to copy"
        needs = self.needs(action)
        return lacks(self.corral.state.me, needs, self.about(action)) if needs else ""

    def needs(self, action: str) -> str:
        """The permission that `action` needs; "" for none."""
        return next((key.needs for key in ROOMS.get(self.ROOM, ()) if key.action == action), "")

    def about(self, action: str) -> str:
        """The object (`kind:name`) that `action` would touch; "" where that is not known before."""
        return ""

    def mind_keys(self) -> None:
        """Draw the keys anew; they change with the row, the focus and the connection."""
        if self.stands:  # when all ends, the focus wanders while widgets go
            self.query_one(KeyLine).set(self.keys())

    def on_descendant_focus(self) -> None:
        self.mind_keys()

    def on_table_moved(self, event: Table.Moved) -> None:
        self.mind_keys()

    async def action_do(self, action: str) -> None:
        """What each key of the keymap calls: the action, or the reason why not."""
        why = self.hindered(action)
        if why:
            self.say(why)
        else:
            self.say("")
            await self.app.run_action(action, self)

    def seek(self, row: str) -> bool:
        """Put the cursor on `row`, also when a filter hides it; False if there is none."""
        table = self.table()
        if table.seek(row):
            return True
        from textual.widgets import Input

        for box in self.query("#needle.on").results(Input):
            box.value = ""
        table.filter("")
        return table.seek(row)

    async def visit(self, row: str, action: str) -> None:
        """Do `action` with `row`, as one who goes there and presses its key."""
        self.draw({"all"})
        if row and not self.seek(row):
            self.say(f"{row} is not there any more")
        elif action:
            await self.action_do(action)

    def choices(self) -> list[tuple[Key, str]]:
        """The keys of this screen, each with the reason why it does nothing now."""
        return [(key, self.hindered(key.action)) for key in ROOMS.get(self.ROOM, ())]

    # ------------------------------------------------------------------ drawing

    def head(self) -> None:
        """Draw the bar: screens and connection, with the age of a stale picture."""
        known, width = self.corral.state, self.app.size.width
        link = state(known.connection, self.corral.ascii)
        if known.connection != "live" and known.seen_at:
            link += f", picture {age(known.seen_at, known.clock())} old"
        wrong = known.health()
        low = self.app.size.height < LOW
        if wrong and low:
            link = f"! {link}"
        here = self.ROOM if self.ROOM in SCREENS.values() else self.app.current_mode  # where esc leads from a form
        rooms = _rooms(here, short=False)
        if len(rooms) + len(link) + 1 > width:
            rooms = _rooms(here, short=True)
        if len(rooms) + len(link) + 1 > width:
            rooms = f"[{(self.ROOM or here).capitalize()}]"
        self.query_one("#bar", Line).set(rooms.ljust(max(len(rooms) + 1, width - len(link) - 1)) + link)
        self.query_one("#health", Note).set("" if low else _in_lines(wrong, width, 2))
        if known.connection != "live" and known.problem is not None:
            lost = "" if known.connection == "ended" else plain(known.lost())  # that is said as long as it is so
            if lost != self._lost:  # said once, and again in other words only where no key was answered meanwhile
                answered, self._lost = self._lost and self._said != self._lost, lost
                if not answered:
                    self.say(lost)
        elif known.connection == "live" and self._lost:
            if self._said == self._lost:
                self.say("")
            self._lost = ""

    def picture(self, kinds: set[str]) -> None:
        """Something of `kinds` changed."""
        if not self.is_mounted or not self.stands:
            return
        self.head()
        self.draw(kinds)
        self.mind_keys()

    def draw(self, kinds: set[str]) -> None:
        """Redraw the body."""

    def happened(self, event: Event) -> None:
        """Every event, at once; for screens that follow one thing."""

    def say(self, words: str, *, news: bool = False) -> None:
        """Show a sentence (what, why, what to do) above the keys, "" takes it away. So does the next key beside a text
        field, and time where it is no more than `news`."""
        words = plain(words)
        if news:
            self.set_timer(NEWS_S, lambda: self.say("") if self._said == words else None)
        if words != self._said:
            self._said = words
            self._show_notice()

    def tell(self, words: str) -> None:
        """Show what came of something that was begun on another screen, or long ago; what is said now stays beside
        it."""
        self.say(" -- ".join(filter(None, (plain(words), self._said))))

    def pass_on(self) -> None:
        """A key was pressed beside a text field: what was said before it has been read."""
        if self.field() is None:
            self.say("")

    def _show_notice(self) -> None:
        notice = self.query_one("#notice", Static)
        words, room = self._said, 3 * max(20, self.app.size.width)
        if len(words) > room or words.count("\n") > 2:
            words = line(words)[: room - 30] + " ... (! shows all of it)"
        notice.set_class(bool(words), "on")
        notice.update(f"! {words}" if words else "")

    def table(self) -> Table:
        return self.query_one(Table)

    def whole(self) -> str:
        """All that is said here and may be cut off: the notice, the lines, and the row under the cursor."""
        parts = [self._said, self.corral.state.health()]
        for table in self.query(Table):
            if table.rows and table.can_focus:
                cells = table.rows[table.cursor].cells
                parts.append(
                    "\n".join(f"{c.title}: {text}" for c, text in zip(table.columns, cells, strict=False) if text)
                )
        parts += [each.text.removeprefix("-- ") for each in self.query(Line) if each.id not in ("bar", "health")]
        return "\n\n".join(part for part in parts if part.strip("- \n"))

    # ------------------------------------------------------------------ keys that mean the same everywhere

    async def action_filter(self) -> None:
        from textual.widgets import Input

        from tui.widgets.entry import Entry

        found = self.query("#needle")
        if found:
            box = found.first(Input)
        else:
            box = Entry(hint="filter", id="needle")
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
        text = plain(self.copied())
        self.app.copy_to_clipboard(text)
        self.say(f"Copied: {line(text)[:60]}", news=True)

    def copied(self) -> str:
        """What `y` copies."""
        return self.table().key if self.query(Table) else ""


def _in_lines(text: str, width: int, lines: int) -> str:
    """`text` where it is whole on so many lines, else its begin on one, and the key that shows all of it: it is always
    there and must not take the room of what one works with."""
    text = line(text)
    if len(wrap(text, width)) <= lines:
        return text
    kept = text[: max(0, width - len(MORE)) + 1].rpartition(" ")[0]  # no half word
    if kept.count("`") % 2:  # nor half a command
        kept = kept.rpartition("`")[0]
    return kept.rstrip(" :,;") + MORE


def _rooms(here: str, *, short: bool) -> str:
    """The screens by their digits; `short` leaves out the words of all but this one."""
    words = []
    for digit, name in SCREENS.items():
        text = digit if short and name != here else f"{digit} {name.capitalize()}"
        words.append(f"[{text}]" if name == here else f" {text} ")
    return " ".join(words)
