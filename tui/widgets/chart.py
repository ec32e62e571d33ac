"""A chart of columns on the Line API: each second redraws its last column, the whole moves seldom."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

BLOCKS = " ▁▂▃▄▅▆▇█"


class Chart(Widget):
    """Shares of 0 to 1, `span` looks a column (their mean), the newest at the right end."""

    DEFAULT_CSS = "Chart { height: 4; width: 1fr; }"

    def __init__(self, title: str, *, span: int = 5, id: str | None = None) -> None:
        super().__init__(id=id)
        self.title = title
        self.span = span
        self.columns: list[float] = []
        self._part: list[float] = []

    def add(self, share: float) -> None:
        """One look; refreshes the last column, or everything when a column is full."""
        if not self._part:
            self.refresh()
        self._look(share)
        self.refresh(Region(self.size.width - 1, 1, 1, max(1, self.size.height - 1)))

    def fill(self, shares: Sequence[float]) -> None:
        """Begin with what is known already, oldest first."""
        self.columns, self._part = [], []
        for share in shares:
            self._look(share)
        self.refresh()

    def _look(self, share: float) -> None:
        if not self._part:
            self.columns = [*self.columns[-399:], share]
        self._part.append(max(0.0, min(1.0, share)))
        self.columns[-1] = sum(self._part) / len(self._part)
        if len(self._part) >= self.span:
            self._part = []

    def render_line(self, y: int) -> Strip:
        width, style = self.size.width, self.rich_style
        if y == 0:
            return Strip([Segment(self.title, style)]).adjust_cell_length(width, style)
        ascii = getattr(self.app, "ascii", False)
        rows = self.size.height - 1
        floor = rows - y
        shown = self.columns[-width:]
        cells = []
        for share in shown:
            part = max(0.0, min(1.0, share * rows - floor))
            cells.append(("#" if part >= 0.5 else " ") if ascii else BLOCKS[round(part * 8)])
        return Strip([Segment(" " * (width - len(shown)) + "".join(cells), style)], width)
