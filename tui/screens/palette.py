"""Everything that can be done, by its words: type a part, enter does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from core.errors import CorralError
from tui.deeds import Deed, of_chats, sought
from tui.plain import line
from tui.rights import lacks
from tui.screens import FOLDER
from tui.widgets.entry import Entry
from tui.widgets.table import Column, Row, Table

if TYPE_CHECKING:
    from tui.front import Front


FOOT = "enter does it, esc leaves"


class Palette(ModalScreen[Deed]):
    """The answer is what was chosen, None after esc. Chats are added as soon as the daemon has told them."""

    CSS_PATH: ClassVar = [FOLDER / "dialogs.tcss"]
    BINDINGS: ClassVar = [
        Binding("escape", "dismiss", show=False),
        Binding("down,ctrl+n", "move(1)", show=False, priority=True),
        Binding("up,ctrl+p", "move(-1)", show=False, priority=True),
        Binding("pagedown", "page(1)", show=False, priority=True),
        Binding("pageup", "page(-1)", show=False, priority=True),
    ]

    def __init__(self, deeds: list[Deed]) -> None:
        super().__init__()
        self.deeds = deeds

    def compose(self) -> ComposeResult:
        with Vertical():
            yield Entry(hint="what to do: part of a name or an action, logs chat or dpl")
            yield Table(
                [Column("action", 20, fit=True), Column("key", 6, fit=True), Column("not now", 10, 1, flex=True)],
                empty="Nothing here has these letters in this order",
            )
            yield Static(FOOT, markup=False, id="foot")

    def on_mount(self) -> None:
        self._fill("")
        self.query_one(Input).focus()
        self.run_worker(self._ask_for_chats(), exit_on_error=True)

    async def _ask_for_chats(self) -> None:
        app = cast("Front", self.app)
        if app.client is None or lacks(app.state.me, "chats.own"):  # a refusal would stand in the trail
            return
        try:
            chats = await app.client.chats()
        except (CorralError, OSError, EOFError, TimeoutError) as error:
            self.say(f"Your chats are missing here: {error}")
            return
        self.deeds += of_chats(chats)
        self._fill(self.query_one(Input).value)
        self._say_why()

    def say(self, words: str) -> None:
        """Put a sentence at the foot."""
        self.query_one("#foot", Static).update(line(words))

    def _fill(self, typed: str) -> None:
        rows = sought([deed._replace(words=line(deed.words)) for deed in self.deeds], typed)
        self._shown = rows
        self.query_one(Table).set_rows(
            [Row(str(n), (deed.words, deed.shown, deed.why), bool(deed.why)) for n, deed in enumerate(rows)]
        )

    def on_input_changed(self, event: Input.Changed) -> None:
        self._fill(event.value)
        self.query_one(Table).move(0)
        self._say_why()

    def action_move(self, by: int) -> None:
        table = self.query_one(Table)
        table.move(table.cursor + by)

    def action_page(self, pages: int) -> None:
        self.query_one(Table).action_page(pages)

    def on_input_submitted(self) -> None:
        self._choose(self.query_one(Table).key)

    def on_table_opened(self, event: Table.Opened) -> None:
        self._choose(event.key)

    def on_table_moved(self, event: Table.Moved) -> None:
        self._say_why()

    def _say_why(self) -> None:
        """Say whole why what is under the cursor cannot be done: its column is narrow."""
        key = self.query_one(Table).key
        deed = self._shown[int(key)] if key else None
        self.say(f"Not now: {deed.why}" if deed is not None and deed.why else FOOT)

    def _choose(self, key: str) -> None:
        deed = self._shown[int(key)] if key else None
        if deed is None:
            self.say("Nothing is chosen: type less, or esc leaves")
        elif deed.why:
            self.say(f"Not now: {deed.why}")
        else:
            self.dismiss(deed)
