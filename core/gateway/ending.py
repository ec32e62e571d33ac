"""Whether a stream is whole whose end is that of its connection: nothing else tells a server that has answered from one
that died over it. Such are servers of somebody else; where chunks end, they say so."""

from __future__ import annotations

import re

TAIL_BYTES = 4 << 10
"""The last event, or in Chat Completions the last but one, begins within these."""
_LAST = re.compile(
    rb'[\r\n]data: ?\[DONE\]|"finish_reason" ?: ?"|"(?:type|event)" ?: ?"(?:message_stop|error)"|[\r\n]event: ?error'
    rb'|"type" ?: ?"response\.(?:completed|incomplete|failed|cancelled)"|[\r\n]data: ?\{ ?"error"'
)
"""As each API ends a stream, or says that it failed. In what a model says quotes are escaped, and lines do not end."""


def tail(before: bytes, data: bytes) -> bytes:
    """The end of what has come."""
    return ((before or b"\n") + data)[-TAIL_BYTES:]


def ended(last: bytes) -> bool:
    """Is this the end of a whole stream?"""
    return _LAST.search(last) is not None
