"""Error answers as OpenAI's clients expect them."""

from __future__ import annotations

import msgspec

PHRASES = {
    200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 413: b"Content Too Large", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout",
}  # fmt: skip


class Refusal(Exception):
    """A request that the gateway itself answers with an error. Never holds a prompt or an answer. `allow`: the methods
    that a 405 names."""

    def __init__(self, status: int, message: str, code: str, *, allow: str = "", headers: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers + (f"Allow: {allow}\r\n".encode() if allow else b"")
        """More of them, each with its line end."""

    def body(self) -> bytes:
        """The JSON error object."""
        if self.status == 429:
            kind = "rate_limit_error"
        elif self.status == 403:
            kind = "permission_error"
        else:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
        return msgspec.json.encode({"error": {"message": self.message, "type": kind, "param": None, "code": self.code}})

    def event(self) -> bytes:
        """The same as a server-sent event, for a stream that has begun."""
        return b"data: " + self.body() + b"\n\n"
