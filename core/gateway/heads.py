"""The head of a connection's last message, remembered: whoever keeps a connection sends the same one again and again.

One that differs from it in nothing but the digits of its Content-Length means what the parser found that time, so it
needs no parser, which is a third of what a small request costs.
"""

from __future__ import annotations

import re

MOST = 4096
"""Bytes of a head that is remembered; each connection has one."""
_LENGTH = re.compile(rb"\r\ncontent-length: ?(\d{1,9})\r\n", re.IGNORECASE)
_DIGITS = 9
_NO_HEAD = b"\0"
"""No message begins so."""


class LastHead:
    """Knows the bytes of one head, up to its length and from there on."""

    __slots__ = ("_after", "_at", "_before")

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Know none."""
        self._at, self._before, self._after = 0, _NO_HEAD, b""

    def learn(self, message: bytes, length: int) -> bool:
        """Remember the head of a whole message that the parser took, whose body is its last `length` bytes; False if
        it is too long or cannot be told apart for certain."""
        end = message.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(message, 0, end) if 4 <= end <= MOST and len(message) - end == length else None
        if found is None or int(found[1]) != length or _LENGTH.search(message, found.end() - 2, end):
            self.forget()
            return False
        self._at = found.start(1)
        self._before, self._after = message[: self._at], message[found.end(1) : end]
        return True

    def body(self, message: bytes) -> bytes | None:
        """The body, if the message is whole and its head the remembered one, but for the length."""
        at, after = self._at, self._after
        end = message.find(b"\r", at, at + _DIGITS + 1)
        if end < 0 or not (message.startswith(self._before) and message.startswith(after, end)):
            return None
        digits, start = message[at:end], end + len(after)
        return message[start:] if digits.isdigit() and len(message) - start == int(digits) else None
