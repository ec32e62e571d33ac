"""The last look at whatever is drawn: what a terminal, a locale or a person cannot take is left out."""

from __future__ import annotations

from functools import lru_cache

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter

from tui.plain import harmless, line


class Colourless(LineFilter):
    """NO_COLOR: bold, dim, italic, underline and reverse stay, colours go."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(s.text, _uncoloured(s.style), s.control) if s.style else s for s in segments]


@lru_cache(1000)
def _uncoloured(style: Style) -> Style:
    return Style(
        bold=style.bold, dim=style.dim, italic=style.italic, underline=style.underline, reverse=style.reverse,
        strike=style.strike, meta=style.meta or None,
    )  # fmt: skip


class Harmless(LineFilter):
    """The last look at whatever is drawn, after every widget has made of a text what it makes of it: Markdown turns
    `&#8238;` into a character that reorders the line."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [s if s.control or harmless(s.text) else Segment(_cleaned(s.text), s.style) for s in segments]


def _cleaned(text: str) -> str:
    from rich.cells import cell_len

    clean = line(text)
    return clean + " " * (cell_len(text) - cell_len(clean))


_ASCII = str.maketrans(
    dict(zip("─━│┃…→●○◔◑◒◐■✗✓⊘↻☾▌▐▔▁▎▊█░▶▼•–—‘’“”", "--||.>*o~~~~-x+x~z||__|##.>v*--''\"\"", strict=True))
)


class Ascii(LineFilter):
    """A non-UTF-8 locale: whatever is drawn leaves as ASCII, as many cells wide as before."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [
            s if s.control or (s.text.isascii() and harmless(s.text)) else Segment(_fold(_cleaned(s.text)), s.style)
            for s in segments
        ]


def _fold(text: str) -> str:
    return "".join(c if c.isascii() else _letter(c) for c in text.translate(_ASCII))


@lru_cache(1000)
def _letter(each: str) -> str:
    """ASCII for one other character, as wide: `e` for an e with an accent, `+` and `#` for lines and blocks."""
    from unicodedata import normalize

    from rich.cells import cell_len

    width = cell_len(each)
    if "\u2500" <= each <= "\u259f":
        return "+" if each < "\u2580" else "#"
    plainer = "".join(c for c in normalize("NFKD", each) if c.isascii() and c.isprintable())
    return plainer if len(plainer) == width else "?" * width
