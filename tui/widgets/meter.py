"""A label, a bar and a value on one line; only the cells of the bar that changed are redrawn."""

from __future__ import annotations

from rich.cells import set_cell_size
from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from tui.plain import line

LABEL = 8


class Meter(Widget):
    """`share` is 0 to 1. The value's text is at the right and has `VALUE` cells."""

    VALUE = 22
    DEFAULT_CSS = "Meter { height: 1; width: 1fr; }"

    def __init__(self, label: str, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.label = label
        self.share = 0.0
        self.value = "-"

    @property
    def bar(self) -> int:
        return max(4, self.size.width - LABEL - self.VALUE - 4)

    def set(self, share: float, value: str) -> None:
        """Show `share` and `value`; nothing is written if both look the same as before."""
        before, value = round(self.share * self.bar), line(value)
        self.share = max(0.0, min(1.0, share))
        after = round(self.share * self.bar)
        if before != after:
            low, high = sorted((before, after))
            self.refresh(Region(LABEL + 1 + low, 0, high - low, 1))
        if value != self.value:
            self.value = value
            self.refresh(Region(LABEL + self.bar + 3, 0, self.VALUE, 1))

    def render_line(self, y: int) -> Strip:
        full = round(self.share * self.bar)
        on, off = ("#", ".") if getattr(self.app, "ascii", False) else ("█", "░")
        text = f"{set_cell_size(self.label, LABEL)}[{on * full}{off * (self.bar - full)}] "
        style = self.rich_style
        return Strip([Segment(text + " " + self.value, style)]).adjust_cell_length(self.size.width, style)
