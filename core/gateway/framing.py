"""A client's bytes cut into requests, and every trap of HTTP caught on the way. Headers are counted before the parser
has them and frozen when they are complete; what cannot be framed for certain is a `Refusal`, after which nothing more
is read."""

from __future__ import annotations

import math
import mmap
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import httptools

from core.gateway.apis import Shape
from core.gateway.errors import Refusal
from core.gateway.heads import LastHead
from core.gateway.keys import Holder
from core.gateway.limits import Meter
from core.gateway.malformed import malformed
from core.gateway.routes import Table

HEAD_BYTES = 32 << 10
AHEAD_BYTES = 64 << 10
PIECE = 16 << 10
STORE_BYTES = 1 << 20
"""Of a store at first: what nothing was written to costs nothing."""
TARGET_BYTES = 8 << 10
"""RFC 9112 asks for 8000 at least."""
EMPTY_BYTES = 1 << 10
"""Of empty lines before a request: one is to be expected."""
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")
_ABSOLUTE = re.compile(rb"https?://[^/?@]+(?:[/?]|$)", re.IGNORECASE)
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+ \S+ HTTP/1\.[01]\r\n")


class Request:
    """One request; whole when it stands in `Framer.ready`."""

    __slots__ = (
        "actor", "body", "deadline", "expects", "frozen", "groups", "holder", "hosts", "id", "keep", "key", "length",
        "meters", "method", "old", "shape", "target", "turn",
    )  # fmt: skip

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.body = b""
        self.hosts = 0
        self.length = 0
        self.expects = self.frozen = self.old = False
        self.keep = True
        self.actor = self.turn = ""
        self.deadline = math.inf
        """Seconds within which its answer shall begin."""
        self.key = b""
        """The secret that it came with, as it came."""
        self.holder: Holder | None = None
        self.groups: frozenset[int] | None = None
        """Of the actor, as the daemon says."""
        self.meters: tuple[Meter, ...] = ()
        """What limits it."""
        self.id = ""
        """Told with the answer; of a request that is counted, the id of its line of usage too."""
        self.shape: Shape = "openai"
        """How it wants to be answered."""


class Framer:
    """Bytes in, requests out. `may` raises `Refusal` for a request that its peer may not make."""

    def __init__(self, table: Table, may: Callable[[Request], None]) -> None:
        self._table = table
        self._may = may
        self._parser: Any = httptools.HttpRequestParser(self)
        self._request = Request()
        self._parts: list[bytes] = []
        self._store: mmap.mmap | None = None
        """Instead of the parts, of a body that is long in coming."""
        self._raw = self.got = 0
        self._chunked = False
        self._last = LastHead()
        self._like = self._request
        self.ready: deque[Request] = deque()
        self.begun = False
        """A request has begun and is not whole."""
        self.waits = False
        """The client waits for `100 Continue`."""

    @property
    def request(self) -> Request:
        """The one that is being read, or was read last. Of its body `got` bytes have come."""
        return self._request

    @property
    def length(self) -> int:
        """Bytes of the body that is being read, as far as is known."""
        return max(self._request.length, self.got)

    def store(self) -> None:
        """Keep what has come of a body, and what comes, outside the heap: memory of the heap that many bodies were in
        is not given back while anything stays above it."""
        if self._store is None:
            self._store = mmap.mmap(-1, max(STORE_BYTES, self.length), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            self._store.write(b"".join(self._parts))
            self._parts.clear()

    def drop(self) -> None:
        """Nothing more is read: forget what has come. Parser and framer know each other, and would keep it until the
        collector of cycles comes by."""
        self._parts.clear()
        if self._store is not None:
            self._store.close()
            self._store = None

    def again(self, data: bytes) -> Request | None:
        """The request that `data` is, if its head is that of the one before, but for its length. Only between two
        requests."""
        body = None if self.begun else self._last.body(data)
        if body is None or len(body) > self._table.limits.body_bytes:
            return None
        self._request = request = self._like
        self._may(request)
        request.body = body
        return request

    def feed(self, data: bytes) -> bytes:
        """Read on; returns what was not read because a request is `ready`. Raises `Refusal`."""
        between = not self.begun
        try:
            # In pieces, so that headers are counted before the parser has swallowed a large read.
            for start in range(0, len(data), PIECE):
                if self.ready:
                    return data[start:]
                piece = data[start : start + PIECE]
                self._raw += len(piece)
                if self._raw > HEAD_BYTES and not self._request.frozen:
                    raise Refusal(431, f"more than {HEAD_BYTES} bytes of headers", "headers_too_large")
                self._parser.feed_data(piece)
                if self._raw > EMPTY_BYTES and not self.begun and not self.ready:
                    raise Refusal(400, "nothing but empty lines", "bad_request")
                more = self._raw - self.got
                if self._chunked and self._request.frozen and more > HEAD_BYTES + AHEAD_BYTES + self.got:
                    raise Refusal(413, "too many bytes of chunk extensions", "bad_request")
        except httptools.HttpParserUpgrade:
            raise _no_upgrade(self._request.method) from None
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            raise cause if isinstance(cause, Refusal) else malformed("") from None
        except httptools.HttpParserInvalidMethodError as error:
            if between and _LINE.match(data):
                raise Refusal(501, "there is no such method", "method") from None
            raise malformed(str(error), data if between else b"") from None
        except httptools.HttpParserError as error:
            raise malformed(str(error), data if between else b"") from None
        if between and len(self.ready) == 1 and not self.begun and self._last.learn(data, self._request.length):
            self._like = self._request
        return b""

    # httptools calls these

    def on_message_begin(self) -> None:
        self.begun = True
        self._request = Request()
        self._chunked = False
        self.got = 0

    def on_url(self, url: bytes) -> None:
        self._request.target += url
        if len(self._request.target) > TARGET_BYTES:
            raise Refusal(414, f"a URL has at most {TARGET_BYTES} bytes", "url_too_long")

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        if request.frozen:
            return
        name = name.lower()
        if name == b"host":
            request.hosts += 1
            if not _HOST.fullmatch(value.strip()):
                raise Refusal(400, "the Host header names no host", "bad_request")
        elif name == b"content-length":
            request.length = int(value)  # the parser has looked at it
        elif name == b"transfer-encoding":
            if value.strip().lower() != b"chunked":
                raise Refusal(501, "there is no other transfer coding than chunked", "transfer_encoding")
            self._chunked = True
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            request.key = value[7:].strip() or b"?"
        elif name == b"x-api-key" and not request.key:
            request.key = value.strip() or b"?"
        elif name == b"expect":
            if value.strip().lower() != b"100-continue":
                raise Refusal(417, "100-continue can be expected, and nothing else", "expectation")
            request.expects = True
        elif name == b"x-corral-actor":
            request.actor = value.decode("utf-8", "replace") or "?"
        elif name == b"x-corral-groups":
            request.groups = frozenset(int(gid) for gid in value.split(b",") if gid.isdigit() and len(gid) < 11)
        elif name == b"x-corral-turn":
            request.turn = value.decode("ascii", "replace") or "?"
        elif name == b"x-corral-deadline":
            request.deadline = _seconds(value)

    def on_headers_complete(self) -> None:
        request = self._request
        request.frozen = True
        request.method = self._parser.get_method()
        version = self._parser.get_http_version()
        if version not in ("1.0", "1.1"):
            raise Refusal(505, "this speaks HTTP/1.1", "http_version")
        request.old = version == "1.0"
        request.keep = self._parser.should_keep_alive() and not request.old
        if self._parser.should_upgrade():
            raise _no_upgrade(request.method)
        if request.hosts > 1 or (request.hosts == 0 and not request.old):
            raise Refusal(400, "a request has exactly one Host header", "bad_request")
        if request.old and self._chunked:  # whoever is before us may frame it in another way
            raise Refusal(400, "HTTP/1.0 has no transfer coding", "bad_request")
        if request.target[:1] != b"/":
            self._odd_target(request)
        elif b"#" in request.target:
            raise Refusal(400, "the URL is malformed", "bad_request")
        self._bound(request.length)
        self._may(request)
        if request.expects and not request.old:
            self.waits = True

    def _odd_target(self, request: Request) -> None:
        """What is no path: `*` is for OPTIONS, a whole URL is ours whatever host it names."""
        target = request.target
        if (target == b"*" and request.method == b"OPTIONS") or (_ABSOLUTE.match(target) and b"#" not in target):
            return
        if request.method != b"CONNECT":  # a tunnel is refused as an upgrade
            raise Refusal(400, "the URL is malformed", "bad_request")

    def on_body(self, body: bytes) -> None:
        self.waits = False
        self.got += len(body)
        self._bound(self.got)
        if self._store is not None:
            if self.got > len(self._store):  # in chunks nobody says how long it will be
                self._store.resize(2 * self.got)
            self._store.write(body)
        else:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self.waits = self.begun = False
        self._raw = 0
        if self._store is not None:
            self._request.body = self._store[: self.got]
            self.drop()
        else:
            self._request.body = b"".join(self._parts)
            self._parts.clear()
        self.ready.append(self._request)

    def _bound(self, length: int) -> None:
        limit = self._table.limits.body_bytes
        if length > limit:
            raise Refusal(413, f"a body has at most {limit} bytes", "body_too_large")


def _seconds(value: bytes) -> float:
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= 1e6:
        raise Refusal(400, "X-Corral-Deadline is a number of seconds above 0, 1e6 at most", "bad_request")
    return seconds


def _no_upgrade(method: bytes) -> Refusal:
    if method == b"CONNECT":
        return Refusal(501, "CONNECT is not supported: this is no proxy", "method")
    return Refusal(501, "Upgrade is not supported", "upgrade")
