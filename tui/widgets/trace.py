"""The last minutes of one replica, a line a figure: a second that changes nothing writes nothing."""

from __future__ import annotations

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.plain import line
from tui.state import PAST_S, Past
from tui.widgets.chart import BLOCKS
from tui.words import size

LABEL, VALUE = 10, 11
LINES = (("cpu %", 100.0), ("private", 1.0), ("tok/s", 10.0))
"""What is drawn, and the least that a whole bar means."""
LOW = 18
"""Rows of a terminal under which it is left out."""


class Trace(Widget):
    """CPU, private memory and tokens a second, each against the most that is shown of it, the newest at the right."""

    DEFAULT_CSS = "Trace { height: 4; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.replica = ""
        self._past: Past | None = None
        self._drawn: list[str] = ["", "", "", ""]

    def show(self, replica: str, past: Past | None) -> None:
        """Draw `past` of `replica`; only lines that differ are drawn anew."""
        self.replica, self._past = line(replica), past
        new = self._lines(past)
        for y, (before, after) in enumerate(zip(self._drawn, new, strict=True)):
            if before != after:
                self.refresh(Region(0, y, self.size.width, 1))
        self._drawn = new

    def _lines(self, past: Past | None) -> list[str]:
        width = max(1, min(self.size.width - LABEL - VALUE - 2, past.columns.maxlen or 1 if past else 1))
        columns = list(past.columns)[-width:] if past else []
        if not columns or not self.replica:
            return [f" {self.replica}: no figures yet" if self.replica else "", "", "", ""]
        minutes = width * PAST_S / 60
        lines = [f" {self.replica}, the last {minutes:.0f} minutes, {PAST_S:.0f} s a column"]
        ascii = getattr(self.app, "ascii", False)
        for at, (name, least) in enumerate(LINES):
            shown = [None if each is None else each[at] for each in columns]
            top = max(least, *(each for each in shown if each is not None))
            bars = "".join(_bar(each, top, ascii) for each in shown).rjust(width)
            now = shown[-1] or 0.0
            value = size(now) if name == "private" else f"{now:.1f}" if name == "tok/s" else f"{now:.0f}"
            lines.append(f" {set_cell_size(name, LABEL - 1)}{bars} {value:>{VALUE}}")
        return lines

    def on_resize(self) -> None:
        self.show(self.replica, self._past)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        text = self._drawn[y] if y < len(self._drawn) else ""
        return Strip([Segment(text, self.rich_style)]).adjust_cell_length(self.size.width, self.rich_style)


def _bar(amount: float | None, top: float, ascii: bool) -> str:
    if amount is None:
        return " "
    step = round(amount / top * 8)
    if ascii:
        return " .:-=+*##"[step]
    return BLOCKS[step] if step or not amount else BLOCKS[1]
