"""Tables that fit a terminal: the least important columns are left out, long cells are cut; elsewhere all is whole."""

from __future__ import annotations

from collections.abc import Sequence
from unicodedata import east_asian_width

GAP = "  "
FREE = 20
"""Cells that the last column, which holds a sentence, keeps before any other is left out for it."""

CELL, SAID = 20, 60
"""Cells that a file's own words (its licence, its architecture) take in a list, and in a line about it alone."""
LEAST_ENDS = 9
"""Cells below which two ends of a name say less than its beginning."""


def cells(text: str) -> int:
    """Columns of a terminal that `text` takes: one or two a letter."""
    return len(text) if text.isascii() else sum(2 if east_asian_width(each) in "WF" else 1 for each in text)


def cut(text: str, width: int, mark: str = "…") -> str:
    """`text` in `width` cells at most, with `mark` for what is cut off. It looks at no more than may be shown: a reason
    may be a whole log, and a table draws it again and again."""
    if len(text) <= width and cells(text) <= width:
        return text
    kept = text[: max(0, width - len(mark))]
    while kept and (over := cells(kept) + len(mark) - width) > 0:
        kept = kept[: len(kept) - (over + 1) // 2]
    return kept + mark[: max(0, width)]


def cut_middle(text: str, width: int, mark: str = "…") -> str:
    """As `cut`, with both ends kept: what tells names of one family apart stands at their end."""
    if cells(text) <= width or width < LEAST_ENDS:
        return cut(text, width, mark)
    end = len(text)
    while cells(text[end - 1 :]) <= (width - len(mark)) // 2:
        end -= 1
    return cut(text, width - cells(text[end:]), mark) + text[end:]


def whole(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of the rows, heading first, each column as wide as its widest cell."""
    return _lines(rows, [max(cells(row[at]) for row in rows) for at in range(len(rows[0]))])


def fitted(rows: Sequence[Sequence[str]], width: int, spare: Sequence[str] = (), mark: str = "…") -> list[str]:
    """Lines of the rows, heading first, in `width` cells at most.

    No column but the last may take more than a third. Then the last one is left out if it is empty, and those named in
    `spare`, in this order, until the rest fits; at last the lines are cut.
    """
    columns = list(range(len(rows[0])))
    widest = [max(cells(row[at]) for row in rows) for at in columns]
    most = max(FREE, width // 3)
    leave = [rows[0].index(name) for name in spare if name in rows[0]]
    if not any(row[-1] for row in rows[1:]):
        leave.insert(0, columns[-1])

    def needed() -> int:
        last = columns[-1]
        taken = [min(widest[at], FREE if at == last else most) for at in columns]
        return sum(taken) + len(GAP) * (len(taken) - 1)

    for at in leave:
        if needed() <= width or len(columns) == 1:
            break
        columns.remove(at)
    kept = [[cut(row[at], most, mark) if at != columns[-1] else row[at] for at in columns] for row in rows]
    return [cut(each, width, mark) for each in whole(kept)]


def _lines(rows: Sequence[Sequence[str]], widths: Sequence[int]) -> list[str]:
    return [
        GAP.join(cell + " " * (width - cells(cell)) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
