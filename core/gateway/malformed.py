"""What is wrong with a request that the parser gave up on, in words for whoever wrote the client. The parser's own are
its version's: those that are not known here say no more than that it is malformed."""

from __future__ import annotations

from core.gateway.errors import Refusal

_MALFORMED = "the request is malformed"
_TLS = b"\x16"
"""What a TLS record that begins a handshake begins with, and no method does."""
_HTTP2 = b"PRI * HTTP/2.0\r\n"
_WHY = {
    "Duplicate Content-Length": "it has more than one Content-Length",
    "Transfer-Encoding can't be present with Content-Length": "it has both Content-Length and Transfer-Encoding",
    "Content-Length can't be present with Transfer-Encoding": "it has both Content-Length and Transfer-Encoding",
    "Invalid character in Content-Length": "its Content-Length is no number",
    "Empty Content-Length": "its Content-Length is no number",
    "Content-Length overflow": "its Content-Length is too large a number",
    "Unexpected whitespace after header value": "it has a header that is folded over several lines",
    "Unexpected space after start line": "its first header begins with a space",
    "Expected CRLF after version": "a line of its head ends with a bare LF: CR LF ends each",
    "Missing expected CR after header value": "a line of its head ends with a bare LF: CR LF ends each",
    "Missing expected LF after header value": "a line of its head has a bare CR: CR LF ends each",
    "Invalid header token": "the name of a header has a space before its colon, or a character that none may have",
    "Invalid header value char": "the value of a header has a control character",
    "Invalid character in chunk size": "the size of a chunk is no hexadecimal number",
    "Chunk size overflow": "the size of a chunk is too large a number",
    "Missing expected CR after chunk size": "the size of a chunk ends with a bare LF: CR LF ends it",
    "Expected LF after chunk data": "a chunk is longer or shorter than its size says",
    "Invalid character in chunk extensions name": "the name of a chunk extension has a character that none may have",
    "Invalid `Transfer-Encoding` header value": "`chunked` is once, and last, in Transfer-Encoding",
    "Invalid HTTP version": "its HTTP version is none",
    "Expected HTTP/, RTSP/ or ICE/": "its first line does not end with HTTP/1.1 after the URL",
    "Invalid method encountered": "its first line begins with no method",
}
"""By llhttp's reasons."""


def malformed(reason: str, begin: bytes = b"") -> Refusal:
    """The refusal for what the parser gave up on for `reason`. `begin`: the bytes that came, if a request begins."""
    if begin.startswith(_TLS):
        return Refusal(400, "this port speaks plain HTTP, and TLS came: say http:// in the URL", "bad_request")
    if begin.startswith(_HTTP2):
        return Refusal(400, "this speaks HTTP/1.1, and HTTP/2 came", "bad_request")
    why = _WHY.get(reason)
    return Refusal(400, f"{_MALFORMED}: {why}" if why else _MALFORMED, "bad_request")
