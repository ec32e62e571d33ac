"""Error answers as each API's clients expect them."""

from __future__ import annotations

import msgspec

from core.gateway.apis import Shape

PHRASES = {
    200: b"OK", 204: b"No Content", 400: b"Bad Request", 401: b"Unauthorized", 403: b"Forbidden", 404: b"Not Found",
    405: b"Method Not Allowed", 408: b"Request Timeout", 409: b"Conflict", 413: b"Content Too Large",
    414: b"URI Too Long", 417: b"Expectation Failed", 429: b"Too Many Requests",
    431: b"Request Header Fields Too Large", 500: b"Internal Server Error", 501: b"Not Implemented",
    502: b"Bad Gateway", 503: b"Service Unavailable", 504: b"Gateway Timeout", 505: b"HTTP Version Not Supported",
    529: b"Overloaded",
}  # fmt: skip
_MESSAGES_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    413: "request_too_large", 429: "rate_limit_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
TOO_MANY = "too_many_answers"
_SAID = 2000
"""Characters of an engine's words that are passed on."""
_WORD = 100
"""Characters of a type, a code, a param."""


class Refusal(Exception):
    """A request that the gateway itself answers with an error. Never holds a prompt or an answer. `allow`: the methods
    that a 405 names. `param`: the field of the body that is wrong. `key`: of the
    known key that is turned away, the uid of its owner and its id."""

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        allow: str = "",
        headers: bytes = b"",
        param: str = "",
        key: tuple[int, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param or None
        self.key = key
        self.headers = headers + (f"Allow: {allow}\r\n".encode() if allow else b"")
        """More of them, each with its line end."""

    def status_in(self, shape: Shape) -> int:
        """The status as `shape` has it: Messages says 529 for what has no room or no replica now."""
        if shape == "messages" and (self.status == 503 or self.code == "queue_full"):
            return 529
        return self.status

    def body(self, shape: Shape = "openai") -> bytes:
        """The JSON error object."""
        if shape == "messages":
            return _messages_body(self.status_in(shape), self.message)
        return msgspec.json.encode({"error": self._fields()})

    def event(self, shape: Shape = "openai") -> bytes:
        """The same as a server-sent event, for a stream that has begun."""
        if shape == "messages":
            return b"event: error\ndata: " + self.body(shape) + b"\n\n"
        if shape == "responses":
            # As documented, and with `error`: OpenAI's clients raise for that alone.
            fields = self._fields()
            told = {
                "type": "error",
                "code": self.code,
                "message": self.message,
                "param": self.param,
                "sequence_number": 0,
            }
            return b"event: error\ndata: " + msgspec.json.encode({**told, "error": fields}) + b"\n\n"
        return b"data: " + self.body() + b"\n\n"

    def _fields(self) -> dict[str, str | None]:
        if self.status == 429:
            kind = "rate_limit_error"
        elif self.status == 403:
            kind = "permission_error"
        else:
            kind = "invalid_request_error" if self.status < 500 else "server_error"
        return {"message": self.message, "type": kind, "param": self.param, "code": self.code}


def too_many(answers: int, most: int, whose: str) -> Refusal:
    """What is said of a request that asks for more answers than can ever be made at once. `whose`: with its verb."""
    why = f"this asks for {answers} answers (each prompt of a list is one, times n) and {whose} {most} at once"
    return Refusal(400, f"{why}: ask for {most} at most, and for the others in requests of their own", TOO_MANY)


def _messages_body(status: int, message: str, kind: str | None = None) -> bytes:
    kind = kind or _MESSAGES_KINDS.get(status, "invalid_request_error" if status < 500 else "api_error")
    return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": message}})


class _Error(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: msgspec.Raw = msgspec.Raw(b"null")
    code: msgspec.Raw = msgspec.Raw(b"null")


class _Said(msgspec.Struct):
    type: str = ""
    error: _Error | str | None = None
    message: str = ""
    detail: msgspec.Raw = msgspec.Raw(b"")


_SAID_SO = msgspec.json.Decoder(_Said).decode
_CODES = {"exceed_context_size_error": "context_length_exceeded"}
"""What llama.cpp has a type of its own for and OpenAI a code, which clients look at."""
_UNSEEN = {n: None for n in (*range(32), *range(127, 160)) if n not in b"\n\t"}
"""Controls, C1 too: what a server of somebody else says may end on a terminal."""


def as_shape(shape: Shape, status: int, body: bytes) -> bytes:
    """An engine's error, bounded, as the clients of `shape` expect it: engines have it in shapes of their own."""
    try:
        said = _SAID_SO(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        said = _Said(message=body[: 4 * _SAID].decode("utf-8", "replace"))
    error = said.error if isinstance(said.error, _Error) else _Error(message=said.error or said.message)
    message = _clean(error.message or bytes(said.detail)[: 4 * _SAID].decode("utf-8", "replace"), _SAID)
    message = message or f"the engine answered {status} and did not say why"
    if shape == "messages":
        known = said.type == "error" and error.type in _MESSAGES_KINDS.values()
        return _messages_body(status, message, error.type if known else None)
    kind = "invalid_request_error" if status < 500 else "server_error"
    if error.type in _CODES:
        code: str | None = _CODES[error.type]
    else:
        kind, code = _clean(error.type or kind, _WORD), _word(error.code)
    fields = {"message": message, "type": kind, "param": _word(error.param), "code": code}
    return msgspec.json.encode({"error": fields})


def _clean(text: str, most: int) -> str:
    return text[:most].translate(_UNSEEN).strip()


def _word(raw: msgspec.Raw) -> str | None:
    """A word of the error object; of anything that is no text, as the number that llama.cpp has for a code, None."""
    value = msgspec.json.decode(raw) if bytes(memoryview(raw)[:1]) == b'"' else None
    return _clean(value, _WORD) if isinstance(value, str) else None
