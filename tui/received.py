"""What the terminal sends, before Textual reads it: bytes that are no UTF-8, pastes with escape sequences, alt+enter.

Textual 8 has no public way to any of it; tests/tui/test_textual.py names what is used of its own parts.
"""

from __future__ import annotations

from codecs import getincrementaldecoder
from typing import Any

from tui.plain import plain

START, END = "\x1b[200~", "\x1b[201~"
"""Around a paste (bracketed paste mode)."""
HELD = 64
"""Characters behind an ESC in a paste that may become its end or a whole sequence."""


class Received:
    """An incremental decoder: a byte that is no UTF-8 is a replaced letter, and a paste is text.

    Textual's driver ends the whole program with such a byte, and the shell gets what was pasted behind it. Its parser
    takes an escape sequence in a paste (a coloured log) for keys: what follows is typed, and a line's end sends it.
    """

    def __init__(self, name: str) -> None:
        self._inner = getincrementaldecoder(name)(errors="replace")
        self._pasting = False
        self._held = ""
        """Of a paste, not given on yet; outside of one, the last characters that were given on."""

    def decode(self, data: bytes, final: bool = False) -> str:
        text = self._inner.decode(data, final)
        out: list[str] = []
        while text:
            text = self._in_paste(text, out) if self._pasting else self._outside(text, out)
        if final and self._pasting:
            out.append(_text(self._held))
            self._held = ""
        return "".join(out)

    def _outside(self, text: str, out: list[str]) -> str:
        """Give on what stands before a paste and its mark; the answer is what is left."""
        seen = self._held + text
        at = seen.find(START)
        if at < 0:
            out.append(text)
            self._held = seen[-len(START) + 1 :]
            return ""
        end = at + len(START)
        out.append(seen[len(self._held) : end])
        self._pasting, self._held = True, ""
        return seen[end:]

    def _in_paste(self, text: str, out: list[str]) -> str:
        seen, self._held = self._held + text, ""
        at = seen.find(END)
        if at >= 0:
            out.append(_text(seen[:at]) + END)
            self._pasting = False
            return seen[at + len(END) :]
        last = seen.rfind("\x1b")
        if last < 0 and seen.endswith("\r"):
            last = len(seen) - 1
        if last >= 0 and len(seen) - last < HELD:
            seen, self._held = seen[:last], seen[last:]
        out.append(_text(seen))
        return ""


def _text(pasted: str) -> str:
    """As text: terminals paste a carriage return for a line's end."""
    return plain(pasted.replace("\r\n", "\n").replace("\r", "\n"))


def forgive_input() -> None:
    """Have Textual's driver decode with `Received`."""
    from textual.drivers import linux_driver

    vars(linux_driver)["getincrementaldecoder"] = lambda name: lambda: Received(name)


def know_alt_enter() -> None:
    """Textual 8 takes alt from an enter that a terminal sends with it as escape and carriage return."""
    from textual import _xterm_parser
    from textual.keys import Keys

    known: dict[str, Any] = vars(_xterm_parser)["ANSI_SEQUENCES_KEYS"]
    vars(_xterm_parser)["ANSI_SEQUENCES_KEYS"] = {**known, "\x1b\r": (Keys.ControlJ,)}
