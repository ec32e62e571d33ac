"""A model's answer: Markdown block by block, the block that still grows as plain text.

A streamed word costs 1,360 bytes in a Markdown widget and 180 in a growing Static (Textual 8.2.8, 120x36).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Static

from tui.plain import plain

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_core import StateCore
    from textual.widgets import Markdown

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)$")


def blocks(text: str) -> tuple[list[str], str]:
    """`text` cut at blank lines that are not within a code fence: the blocks that are complete, and the rest."""
    done: list[str] = []
    current: list[str] = []
    fence = ""
    *lines, last = text.split("\n")
    for each in lines:
        found = _FENCE.match(each)
        if found and not fence:
            fence = found[1]
        elif found and found[1].startswith(fence) and not found[2].strip():
            fence = ""
        if each.strip() or fence:
            current.append(each)
        elif current:
            done.append("\n".join(current))
            current = []
    return done, "\n".join([*current, last])


class Answer(Vertical):
    """`show` takes the text so far, from anywhere; it is filtered here."""

    DEFAULT_CSS = "Answer { height: auto; } Answer Static { height: auto; } Answer Markdown { padding: 0; }"

    def __init__(self, text: str = "", *, whole: bool = True) -> None:
        super().__init__()
        done, rest = _parts(text, whole)
        self._blocks = done
        self._tail = Static(rest, markup=False)
        self._tail.display = bool(rest)

    def compose(self) -> ComposeResult:
        yield from map(_markdown, self._blocks)
        yield self._tail

    async def show(self, text: str, *, whole: bool) -> None:
        """Show `text`; `whole` says that nothing more will come."""
        done, rest = _parts(text, whole)
        kept = len(self._blocks) if done[: len(self._blocks)] == self._blocks else 0
        with self.app.batch_update():  # the block must not vanish before its Markdown stands there
            if not kept:
                await self.query("Markdown").remove()
            self._blocks = done
            if done[kept:]:
                await self.mount(*map(_markdown, done[kept:]), before=self._tail)
            self._tail.update(rest)
            self._tail.display = bool(rest)


def _parts(text: str, whole: bool) -> tuple[list[str], str]:
    done, rest = blocks(plain(text))
    if whole and rest.strip():
        return [*done, rest], ""
    return done, rest


def _markdown(block: str) -> Markdown:
    from textual.widgets import Markdown  # 30 ms that the first paint need not pay

    return Markdown(block, parser_factory=_parser, open_links=False)


def _parser() -> MarkdownIt:
    """A line of the answer stays a line: models write lists and verses that plain Markdown would run together."""
    from markdown_it import MarkdownIt

    parser = MarkdownIt("gfm-like", {"breaks": True})
    parser.core.ruler.push("code", _as_text)
    return parser


def _as_text(state: StateCore) -> None:
    """Code of no named language is drawn as it is: to guess its language Textual loads 500 lexers, and nothing else is
    drawn for a second."""
    for token in state.tokens:
        if token.type in ("fence", "code_block") and not token.info.strip():
            token.info = "text"
