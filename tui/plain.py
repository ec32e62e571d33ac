"""The one filter through which every string from outside passes before a widget may draw it.

Model text, log lines, file names and reasons are hostile: they may hold escape sequences, C1 controls and
characters that reorder a line (bidi overrides). Nothing of them reaches the terminal.
"""

from __future__ import annotations

import re

_SEQUENCE = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI
    r"|\x9b[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # OSC, DCS, SOS, PM, APC
    r"|\x1b[ -/]*[0-~]?"
)
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def plain(text: object) -> str:
    """`text` without escape sequences, controls (C0, C1) and bidi overrides; newlines stay, a tab is four blanks."""
    clean = _SEQUENCE.sub("", str(text)).replace("\r\n", "\n").replace("\t", "    ")
    return _CONTROL.sub("", clean)


def line(text: object) -> str:
    """`plain` on one line."""
    return plain(text).replace("\n", " ")
