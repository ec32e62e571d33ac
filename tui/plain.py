"""The one filter through which every string from outside passes before a widget may draw it.

Model text, log lines, file names and reasons are hostile: they may hold escape sequences, C1 controls and
characters that reorder a line (bidi overrides). Nothing of them reaches the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x9b[0-?]*[ -/]*[@-~]"
    # OSC, DCS, SOS, PM, APC: with their text only where they end. One that never does, a stray byte in an answer, must
    # not take the line with it; another one ends the look, so that a text of nothing else takes no longer than it is.
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c-\x9f\n]*+(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ud800-\udfff\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls, what reorders a line, and what has no width or none that terminals agree on (joiners, variants)."""
_PILE = re.compile("([\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]{3})"
                   "[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]+")  # fmt: skip
"""More than three marks on one letter, which draw over the lines above."""


def plain(text: object) -> str:
    """`text` without escape sequences, controls (C0, C1) and bidi overrides; newlines stay, a tab is four blanks."""
    clean = _SEQUENCE.sub("", str(text)).replace("\r\n", "\n").replace("\t", "    ")
    return _PILE.sub(r"\1", _CONTROL.sub("", clean))


def visible(text: object) -> str:
    """`text` with what `plain` would take out written as one would write it in a program (`\\x1b[31m`): for code and
    templates, in which it may be what one looks for."""
    shown = _PILE.sub(lambda found: found[1] + _escaped(found[0][3:]), str(text).replace("\t", "    "))
    return _CONTROL.sub(lambda found: _escaped(found[0]), shown)


def _escaped(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


def harmless(text: str) -> bool:
    """True for one line from which `plain` would take nothing."""
    return not ("\n" in text or "\t" in text or _CONTROL.search(text) or _PILE.search(text))


def line(text: object) -> str:
    """`plain` on one line."""
    text = str(text)
    if text.isascii() and text.isprintable():  # a list of a thousand models is nothing else
        return text
    return plain(text).replace("\n", " ")


def draws_ascii(environment: Mapping[str, str], encoding: str) -> bool:
    """Whether the terminal may not know UTF-8: its encoding is another, or LC_ALL says C, where Python takes UTF-8."""
    return "utf" not in encoding.lower() or environment.get("LC_ALL") in ("C", "POSIX")


def places(environment: Mapping[str, str]) -> bool:
    """Whether TERM names a terminal that can place text on its screen, as the console needs."""
    return environment.get("TERM", "") not in ("", "dumb", "unknown")
