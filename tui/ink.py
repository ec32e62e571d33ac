"""What is written to the terminal: only the cells that differ from those that stand there.

Textual 8.2.8 writes a dirty region from the left edge of its widget, whatever changed in it: one column of a chart
rewrites the chart. Here the frame that was written last is kept and the next one is compared with it cell by cell. Idle
on Overview at 120x36 that is some 9,000-15,000 bytes a minute instead of 60,000-80,000 (docs/performance.md).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.control import Control
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, CompositorUpdate, LayoutUpdate
from textual.strip import Strip

GAP = 10
"""Equal cells between two changes that are written rather than jumped over: a jump costs 6-8 bytes, a style 40."""

Cell = tuple[str, Style | None]


class Piece(NamedTuple):
    """A part of line `y` from cell `x` on."""

    x: int
    y: int
    strip: Strip


class Ink:
    """The cells that stand on the terminal; None where that is not known."""

    def __init__(self) -> None:
        self._rows: dict[int, list[Cell | None]] = {}
        self._strips: dict[int, dict[int, Strip]] = {}
        """By line and first cell what was drawn there, while nothing was drawn over it: most of a frame is known to be
        the same before it is cut into cells."""

    def forget(self) -> None:
        """Somebody else may have written: the next frame is written whole."""
        self._rows.clear()
        self._strips.clear()

    def changed(self, update: CompositorUpdate, console: Console) -> str:
        """What brings the terminal from the last frame to `update`; keeps that as the last frame."""
        pieces = pieces_of(update)
        if pieces is None:
            self.forget()
            return update.render_segments(console)
        return "".join(text for piece in pieces for text in self._piece(piece, console))

    def _piece(self, piece: Piece, console: Console) -> Iterator[str]:
        x, y, strip = piece
        known = self._strips.setdefault(y, {})
        if known.get(x) == strip:
            return
        for at in [at for at, old in known.items() if at < x + strip.cell_length and x < at + old.cell_length]:
            del known[at]
        known[x] = strip
        new = cells_of(strip)
        row = self._rows.setdefault(y, [])
        end = x + (len(new) if new is not None else strip.cell_length)
        if len(row) < end:
            row.extend([None] * (end - len(row)))
        if new is None:  # wide or zero-width: a terminal may count them in another way, so nothing is taken for known
            row[x:end] = [None] * (end - x)
            yield Control.move_to(x, y).segment.text + strip.render(console)
            return
        for low, high in runs(row[x:end], new):
            cells = new[low:high]
            yield Control.move_to(x + low, y).segment.text + Strip(segments_of(cells), high - low).render(console)
        row[x:end] = new


class Difference(CompositorUpdate):
    """A frame on its way: what is written is worked out when it is."""

    def __init__(self, text: str) -> None:
        self.text = text

    def render_segments(self, console: Console) -> str:
        return self.text


def pieces_of(update: CompositorUpdate) -> Iterable[Piece] | None:
    """The parts of lines that `update` draws, None for an update of a kind that is not known."""
    if isinstance(update, LayoutUpdate):
        return _lines(update)
    if isinstance(update, ChopsUpdate):
        return _spans(update)
    return None


def _lines(update: LayoutUpdate) -> Iterator[Piece]:
    for y, line in enumerate(update.strips, update.region.y):
        yield Piece(update.region.x, y, Strip.join(line))


def _spans(update: ChopsUpdate) -> Iterator[Piece]:
    for y in dict.fromkeys(y for y, _, _ in update.spans):
        spans = [(x1, x2) for line, x1, x2 in update.spans if line == y]
        for end, (x, strip) in zip(update.chop_ends[y], update.chops[y].items(), strict=False):
            if strip is not None and any(x < x2 and x1 < end for x1, x2 in spans):
                yield Piece(x, y, strip)


def cells_of(strip: Strip) -> list[Cell] | None:
    """One character and its style a cell; None if any character is not one cell wide."""
    cells: list[Cell] = []
    for text, style, control in strip:
        if control:
            continue
        if not text.isascii() and any(cell_len(each) != 1 for each in text):
            return None
        cells.extend((each, style) for each in text)
    return cells


def runs(old: list[Cell | None], new: list[Cell]) -> Iterator[tuple[int, int]]:
    """Where `new` differs, as (first, after the last); near ones are joined."""
    first = last = -1
    for at, (before, after) in enumerate(zip(old, new, strict=True)):
        if before == after:
            continue
        if first >= 0 and at - last > GAP:
            yield first, last + 1
            first = at
        elif first < 0:
            first = at
        last = at
    if first >= 0:
        yield first, last + 1


def segments_of(cells: list[Cell]) -> list[Segment]:
    """Cells of one style together."""
    segments: list[Segment] = []
    text, style = "", None
    for each, its in cells:
        if text and its is not style and its != style:
            segments.append(Segment(text, style))
            text = ""
        style = its
        text += each
    if text:
        segments.append(Segment(text, style))
    return segments
