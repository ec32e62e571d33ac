"""A live table on the Line API: a changed cell refreshes its own region and nothing else.

Textual 8.2.8's DataTable writes 6,200 bytes for one cell of a 12-row table, this some 200 (docs of console bytes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.binding import Binding
from textual.geometry import Region, Size
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tui.columns import cut, cut_middle
from tui.keymap import TABLE
from tui.plain import harmless, line
from tui.words import colour

LEAST_NEEDED = 5
"""Columns of this priority and above go before a name is cut."""


class Column(NamedTuple):
    """`width` in cells; one with `fit`, a name, grows to its longest cell and is cut in its middle, the one with `flex`
    takes what is left then. Higher `priority` numbers are dropped first where there is no room for all."""

    title: str
    width: int
    priority: int = 0
    right: bool = False
    flex: bool = False
    state: bool = False
    """The cell is symbol and state word: coloured by it."""
    fit: bool = False


class Row(NamedTuple):
    key: str
    cells: tuple[str, ...]
    dim: bool = False
    """It can't be chosen now."""


def _clean(row: Row) -> Row:
    if harmless("".join(row.cells)):  # of a thousand rows nearly all are, and looking at each cell takes 10 ms
        return row
    return row._replace(cells=tuple(line(cell) for cell in row.cells))


class Table(Widget, can_focus=True):
    """Rows with a cursor. Fixed column widths make a change of one cell local to it."""

    BINDINGS: ClassVar = [Binding(k.keys, k.action, k.words, show=False) for k in TABLE]
    DEFAULT_CSS = "Table { height: 1fr; width: 1fr; }"

    class Opened(Message):
        """Enter on a row."""

        def __init__(self, table: Table, key: str) -> None:
            super().__init__()
            self.table = table
            self.key = key

        @property
        def control(self) -> Table:
            return self.table

    class Moved(Opened):
        """The cursor is on another row."""

    def __init__(self, columns: Sequence[Column], *, empty: str = "", id: str | None = None) -> None:
        super().__init__(id=id)
        self.columns = tuple(columns)
        self.empty = empty
        self.rows: list[Row] = []
        self.all_rows: list[Row] = []
        self.needle = ""
        self.cursor = 0
        self.top = 0
        self._shown: list[tuple[int, int, int]] = []  # column, x, width

    # ------------------------------------------------------------------ content

    def set_rows(self, rows: Sequence[Row]) -> None:
        """Show `rows` (strings from anywhere; they are filtered here). The cursor stays on its row's key."""
        clean = [_clean(row) for row in rows]
        self.all_rows = clean
        self._take(self._matching(clean))

    def none(self, words: str) -> None:
        """Say `words` in place of the rows while there are none."""
        if words != self.empty:
            self.empty = words
            self.refresh()

    def append(self, rows: Sequence[Row], keep: int) -> None:
        """Add rows below, the oldest go when there are more than `keep`. A cursor on the last row stays on the last."""
        at_end = self.cursor >= len(self.rows) - 1
        self.all_rows = (self.all_rows + [_clean(row) for row in rows])[-keep:]
        key, self.rows = self.key, self._matching(self.all_rows)
        if at_end:
            self.cursor = max(0, len(self.rows) - 1)
        else:
            self.cursor = next((n for n, row in enumerate(self.rows) if row.key == key), 0)
        self._keep_in_view()
        self.refresh()

    def filter(self, needle: str) -> None:
        """Show only rows that contain `needle`, whatever the case."""
        self.needle = needle.casefold()
        self._take(self._matching(self.all_rows))
        if not self.rows:  # what stands in their place may be about the filter
            self.refresh()

    def unmatched(self) -> str:
        """What stands in place of rows that the filter leaves out, all of them."""
        return "No match for the filter (esc clears it)"

    def _matching(self, rows: list[Row]) -> list[Row]:
        return [row for row in rows if self.needle in " ".join(row.cells).casefold()] if self.needle else rows

    def _take(self, rows: list[Row]) -> None:
        old, key = self.rows, self.key
        self.rows = rows
        if len(old) != len(rows) and self.styles.is_auto_height:
            self.refresh(layout=True)
        if self._lay_out():
            self.refresh()
        if [row.key for row in old] != [row.key for row in rows]:
            keys = [row.key for row in rows]
            self.cursor = keys.index(key) if key in keys else max(0, min(self.cursor, len(rows) - 1))
            self._keep_in_view()
            self.refresh()
            if self.key != key and self.is_mounted:
                self.post_message(self.Moved(self, self.key))
            return
        for y in range(self.top, min(len(rows), self.top + self.page)):
            before, after = old[y], rows[y]
            if before == after:
                continue
            for column, x, width in self._shown:
                if column >= len(before.cells) or before.cells[column] != after.cells[column]:
                    self.refresh(Region(x, y - self.top + 1, width, 1))

    @property
    def key(self) -> str:
        """The key of the row under the cursor, "" if there is none."""
        return self.rows[self.cursor].key if 0 <= self.cursor < len(self.rows) else ""

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        """Lines that a table with `height: auto` takes: its titles and its rows, or the sentence in their place."""
        return 1 + max(1, len(self.rows))

    @property
    def page(self) -> int:
        return max(1, self.size.height - 1)

    # ------------------------------------------------------------------ drawing

    def _lay_out(self) -> bool:
        """Share the width among the columns; True when that changed anything."""
        kept = list(range(len(self.columns)))
        room, before = self.size.width - 1, self._shown
        least = {i: self._least(i) for i in kept}
        wanted = {i: self._longest(i) if self.columns[i].fit else least[i] for i in kept}

        def spare() -> int:
            return room - sum(least[i] + 1 for i in kept)

        def named() -> bool:
            """What tells the rows apart is there in full."""
            return spare() >= sum(max(0, wanted[i] - least[i]) for i in kept if not self.columns[i].priority)

        while len(kept) > 1 and (spare() < 0 or not named()):
            last = max(kept, key=lambda i: (self.columns[i].priority, i))
            if spare() >= 0 and self.columns[last].priority < LEAST_NEEDED:
                break
            kept.remove(last)
        for i in kept if not named() else ():
            if self.columns[i].flex:  # half a sentence is of use, and the whole is a key away
                wanted[i] = least[i] = min(least[i], max(cell_len(self.columns[i].title), self.columns[i].width // 2))
        left = max(0, spare())
        x, shown = 1, []
        width = {}
        for i in kept:
            width[i] = least[i] + max(0, min(left, wanted[i] - least[i]))
            left -= width[i] - least[i]
        for i in kept:
            width[i] += left if self.columns[i].flex else 0
            shown.append((i, x, width[i]))
            x += width[i] + 1
        self._shown = shown
        return shown != before

    def _longest(self, i: int) -> int:
        """Cells of the longest text in column `i`."""
        return max((cell_len(row.cells[i]) for row in self.all_rows if i < len(row.cells)), default=0)

    def _least(self, i: int) -> int:
        """Cells that column `i` keeps: its width, or, of the one that takes what is left, what its texts need of it."""
        column = self.columns[i]
        if not column.flex:
            return column.width
        return min(column.width, max(cell_len(column.title), self._longest(i)))

    def on_resize(self, event: events.Resize) -> None:
        self._lay_out()
        self._keep_in_view()
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        base = self.rich_style
        if y == 0:
            titles = [(i, x, w, self.columns[i].title) for i, x, w in self._shown]
            return self._strip(titles, base + Style(bold=True, underline=True), width)
        index = self.top + y - 1
        if index >= len(self.rows):
            if not self.rows and y == 1:
                words = self.unmatched() if self.all_rows else self.empty
                return Strip([Segment(set_cell_size(" " + words, width), base + Style(dim=True))], width)
            return Strip([Segment(" " * width, base)], width)
        row = self.rows[index]
        style = base + Style(dim=True) if row.dim else base
        if index == self.cursor and self.can_focus:
            style += Style(reverse=True) if self.has_focus else Style(bold=True)
        cells = [(i, x, w, row.cells[i] if i < len(row.cells) else "") for i, x, w in self._shown]
        return self._strip(cells, style, width, mark=index == self.cursor and self.can_focus)

    def _strip(self, cells: list[tuple[int, int, int, str]], style: Style, width: int, mark: bool = False) -> Strip:
        segments = [Segment(">" if mark else " ", style)]
        for i, _, w, text in cells:
            column = self.columns[i]
            if cell_len(text) > w:
                text = cut_middle(text, w) if column.fit else cut(text, w)
            elif column.right:
                text = " " * (w - cell_len(text)) + text
            hue = colour(text.strip().rpartition(" ")[2]) if column.state and not style.reverse else ""
            segments.append(Segment(set_cell_size(text, w), style + Style(color=hue) if hue else style))
            segments.append(Segment(" ", style))
        return Strip(segments).adjust_cell_length(width, style)

    # ------------------------------------------------------------------ moving

    def _keep_in_view(self) -> None:
        self.top = max(0, min(self.top, len(self.rows) - self.page))
        if self.cursor < self.top:
            self.top = self.cursor
        elif self.cursor >= self.top + self.page:
            self.top = self.cursor - self.page + 1

    def move(self, to: int) -> None:
        """Put the cursor on row `to`, as near as there is one; redraws two lines unless the page moved."""
        before, top = self.cursor, self.top
        self.cursor = max(0, min(to, len(self.rows) - 1))
        self._keep_in_view()
        if top != self.top:
            self.refresh()
        elif before != self.cursor:
            for index in (before, self.cursor):
                self.refresh(Region(0, index - self.top + 1, self.size.width, 1))
        if before != self.cursor:
            self.post_message(self.Moved(self, self.key))

    def seek(self, key: str) -> bool:
        """Put the cursor on the row of `key`; False if it isn't shown."""
        at = next((n for n, row in enumerate(self.rows) if row.key == key), -1)
        if at >= 0:
            self.move(at)
        return at >= 0

    def action_down(self) -> None:
        self.move(self.cursor + 1)

    def action_up(self) -> None:
        self.move(self.cursor - 1)

    def action_first(self) -> None:
        self.move(0)

    def action_last(self) -> None:
        self.move(len(self.rows) - 1)

    def action_page(self, pages: int) -> None:
        self.move(self.cursor + pages * self.page)

    def action_open(self) -> None:
        if self.key:
            self.post_message(self.Opened(self, self.key))

    def on_click(self, event: events.Click) -> None:
        if event.y > 0:
            self.move(self.top + event.y - 1)

    def on_focus(self) -> None:
        self.refresh()

    def on_blur(self) -> None:
        self.refresh()
