"""The keys of a screen on its last line; those that do nothing now are dimmed."""

from __future__ import annotations

from collections.abc import Sequence

from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from tui.plain import line


class KeyLine(Widget):
    """Words from the left, as many as there is room for; a mark where there are more, which help has (`?`)."""

    DEFAULT_CSS = "KeyLine { height: 1; width: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self.keys: tuple[tuple[str, bool], ...] = ()

    def set(self, keys: Sequence[tuple[str, bool]]) -> None:
        """Show `keys`: what to press and what it does, and whether it may be done now."""
        new = tuple((line(text), free) for text, free in keys)
        if new != self.keys:
            self.keys = new
            self.refresh()

    def render_line(self, y: int) -> Strip:
        width, style, used = self.size.width, self.rich_style, 1
        colourless = getattr(self.app, "colourless", False)
        segments = [Segment(" ", style)]
        for n, (text, free) in enumerate(self.keys, 1):
            shown = text if free or not colourless else f"({text})"  # a terminal without colours may not know dim
            if used + len(shown) + 3 * (n < len(self.keys)) > width:
                segments.append(Segment("…", style))
                break
            segments.append(Segment(shown, style if free else style + Style(dim=True)))
            segments.append(Segment("  ", style))
            used += len(shown) + 2
        return Strip(segments).adjust_cell_length(width, style)
