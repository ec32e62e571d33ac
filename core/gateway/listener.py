"""The client's side: framing, the HTTP traps, who may, and the answer on its way out."""

from __future__ import annotations

import asyncio
import functools
import os
from collections import deque
from typing import Any

import httptools
import msgspec

from core.gateway.errors import PHRASES, Refusal
from core.gateway.exchange import DECODE_ASKED, Core, Exchange
from core.gateway.outbox import OUT
from core.gateway.turns import Turn
from core.gateway.upstream import EngineConnection, Pool
from core.peer import peer

HEAD_BYTES = 32 << 10
AHEAD_BYTES = 64 << 10
PIECE = 16 << 10
HEAD_S = 30.0
"""A request that has begun must be whole within this and the idle time-out."""
LINGER_S = 5.0
"""How long what a refused client still sends is dropped before its connection is closed."""
ROUTES = {b"/v1/chat/completions", b"/v1/completions", b"/v1/embeddings"}


@functools.lru_cache(maxsize=128)
def answer_head(status: int, content_type: bytes, chunked: bool, keep: bool) -> bytes:
    """The head of an answer without its end and without a length."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n" % (status, PHRASES.get(status, b"Status"), content_type)
    if chunked:
        head += b"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n"
    return head if keep else head + b"Connection: close\r\n"


class _Request:
    """One request as it comes in; its headers are frozen when they are complete."""

    __slots__ = ("actor", "body", "expects", "frozen", "hosts", "keep", "length", "method", "old", "target", "turn")

    def __init__(self) -> None:
        self.target = b""
        self.method = b""
        self.body: list[bytes] = []
        self.hosts = 0
        self.length = 0
        self.expects = self.frozen = self.old = False
        self.keep = True
        self.actor = self.turn = ""


class _Relay:
    """Takes an answer of another gateway for a client of this one."""

    def __init__(self, client: ClientConnection) -> None:
        self._client = client
        self._begun = False
        self.ended = asyncio.Event()

    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None:
        self._begun = True
        self._client.begin(status, content_type, length)

    def answer_part(self, data: bytes, last: bool) -> None:
        self._client.part(data, last)
        if last:
            self.ended.set()

    def answer_lost(self) -> None:
        if self._begun:
            self._client.break_off()
        else:
            self._client.refuse(Refusal(404, "no such turn", "not_found"))
        self.ended.set()


class ClientConnection(asyncio.Protocol):
    """One client. Reading is never paused: a paused socket does not tell that its client has gone."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._parser: Any = None
        self._request = _Request()
        self._ready: deque[_Request] = deque()
        self._ahead = bytearray()
        self._exchange: Exchange | None = None
        self._busy = False
        self._paused = False
        self._refused = False
        self._head = b""
        self._current = self._request
        self._raw = self._got = 0
        self._started = False
        self._chunked = False
        self._closed = False
        self._last = False
        self._continue = False
        self._turn: Turn | None = None
        self._elsewhere: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        try:
            _, self._uid, self._groups = peer(transport.get_extra_info("socket"))
        except OSError:
            self._uid, self._groups = -1, frozenset[int]()
        self._parser = httptools.HttpRequestParser(self)
        self._core.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._core.clients.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self._turn is not None:
            self._turn.leave(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._elsewhere is not None:
            self._elsewhere.cancel()

    def leave(self) -> None:
        """This gateway takes nothing new: close at once if nothing is asked, else after the answer."""
        if not self._busy and not self._ready and self._timer is None:
            self._last = True
            self._transport.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._paused = True
        if self._exchange is not None:
            self._exchange.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._exchange is not None:
            self._exchange.resume()
        self._next()

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        if self._busy or self._last or self._paused or self._ahead or self._ready:
            self._keep_ahead(data)
        else:
            self._feed(data)

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > AHEAD_BYTES:
            self._transport.abort()

    def _feed(self, data: bytes) -> None:
        try:
            # In pieces, so that headers are counted before the parser has swallowed a large read.
            for start in range(0, len(data), PIECE):
                if self._ready:
                    self._keep_ahead(data[start:])
                    break
                piece = data[start : start + PIECE]
                self._raw += len(piece)
                if self._raw > HEAD_BYTES and not self._request.frozen:
                    self._fail(Refusal(431, f"more than {HEAD_BYTES} bytes of headers", "headers_too_large"))
                    return
                self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            self._fail(Refusal(501, "Upgrade is not supported", "upgrade"))
            return
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            known = isinstance(cause, Refusal)
            self._fail(cause if known else Refusal(400, "the request is malformed", "bad_request"))  # type: ignore[arg-type]
            return
        except httptools.HttpParserError:
            self._fail(Refusal(400, "the request is malformed", "bad_request"))
            return
        overhead = self._raw - self._got
        if self._request.frozen and self._chunked and overhead > HEAD_BYTES + AHEAD_BYTES + self._got:
            self._fail(Refusal(413, "too many bytes of chunk extensions", "bad_request"))
            return
        if self._started and self._timer is None:
            seconds = HEAD_S + self._core.table.limits.idle_timeout_s
            self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
        self._next()

    def _next(self) -> None:
        """Serve what is whole, one after the other, while the client takes its answers; then read what came ahead."""
        while not (self._busy or self._closed or self._last or self._paused):
            if self._ready:
                self._serve(self._ready.popleft())
            elif self._ahead:
                data = bytes(self._ahead)
                self._ahead.clear()
                self._feed(data)
            else:
                if self._continue:
                    self._continue = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return

    # httptools calls these

    def on_message_begin(self) -> None:
        self._started = True
        self._request = _Request()
        self._chunked = False
        self._got = 0

    def on_url(self, url: bytes) -> None:
        self._request.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        request = self._request
        if request.frozen:
            return
        name = name.lower()
        if name == b"host":
            request.hosts += 1
        elif name == b"content-length":
            request.length = int(value) if value.isdigit() else 0
        elif name == b"transfer-encoding":
            self._chunked = True
        elif name == b"expect":
            request.expects = value.lower() == b"100-continue"
        elif name == b"x-corral-actor":
            request.actor = value.decode("utf-8", "replace") or "?"
        elif name == b"x-corral-turn":
            request.turn = value.decode("ascii", "replace") or "?"

    def on_headers_complete(self) -> None:
        request = self._request
        request.frozen = True
        request.method = self._parser.get_method()
        request.old = self._parser.get_http_version() != "1.1"
        request.keep = self._parser.should_keep_alive() and not request.old
        if self._parser.should_upgrade():
            raise Refusal(501, "Upgrade is not supported", "upgrade")
        if request.hosts > 1 or (request.hosts == 0 and not request.old):
            raise Refusal(400, "a request has exactly one Host header", "bad_request")
        limit = self._core.table.limits.body_bytes
        if request.length > limit:
            raise Refusal(413, f"a body has at most {limit} bytes", "body_too_large")
        self._check(request)
        if request.expects and not request.old:
            self._continue = True

    def on_body(self, body: bytes) -> None:
        self._continue = False
        self._got += len(body)
        limit = self._core.table.limits.body_bytes
        if self._got > limit:
            raise Refusal(413, f"a body has at most {limit} bytes", "body_too_large")
        self._request.body.append(body)

    def on_message_complete(self) -> None:
        self._continue = self._started = False
        self._raw = 0
        self._ready.append(self._request)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -------------------------------------------------------------------------------- one request

    def _check(self, request: _Request) -> None:
        if not self._core.table.allows(self._uid, self._groups):
            raise Refusal(403, f"uid {self._uid} may not use this gateway", "not_allowed")
        if (request.actor or request.turn) and self._uid not in (self._core.owner, 0):
            raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed")

    def _serve(self, request: _Request) -> None:
        self._busy = True
        self._current = request
        try:
            if request.target in ROUTES:
                self._post(request, request.target)
                return
            url = httptools.parse_url(request.target)
            path = url.path or b"/"
            if path in ROUTES:
                self._post(request, path)
            elif path == b"/v1/models":
                self._models(request)
            elif path.startswith(b"/corral/turns/"):
                self._turns(request, path[14:].decode("ascii", "replace"), url.query or b"")
            else:
                raise Refusal(404, "no such route", "not_found")
        except Refusal as refusal:
            self.refuse(refusal)
        except httptools.HttpParserError:
            self.refuse(Refusal(400, "the URL is malformed", "bad_request"))

    def _post(self, request: _Request, path: bytes) -> None:
        if request.method != b"POST":
            raise Refusal(405, "POST a JSON body here", "method")
        body = b"".join(request.body)
        request.body.clear()
        try:
            asked = DECODE_ASKED(body)
        except msgspec.DecodeError as error:
            reason = "it is not JSON" if not isinstance(error, msgspec.ValidationError) else str(error)
            raise Refusal(400, f"the body cannot be read: {reason}", "bad_request") from None
        uid = self._uid
        if request.actor:
            said = request.actor.partition(":")[0]
            uid = int(said) if said.isascii() and said.isdigit() else uid
        exchange = Exchange(self._core, self, path.decode(), body, asked, uid, request.actor, request.turn)
        self._exchange = exchange
        exchange.start()

    def _models(self, request: _Request) -> None:
        if request.method != b"GET":
            raise Refusal(405, "GET this", "method")
        rows = [
            {"id": name, "object": "model", "created": int(target.route.created_at), "owned_by": "corral"}
            for name, target in sorted(self._core.table.targets.items())
        ]
        self._json(200, msgspec.json.encode({"object": "list", "data": rows}))

    def _turns(self, request: _Request, id: str, query: bytes) -> None:
        if self._uid not in (self._core.owner, 0, os.getuid()):
            raise Refusal(403, "turns are the daemon's", "not_allowed")
        turn = self._core.turns.get(id)
        if turn is None:
            if self._core.elsewhere is None:
                raise Refusal(404, "no such turn", "not_found")
            self._elsewhere = self._core.start(self._ask_elsewhere(self._core.elsewhere, request))
            return
        if request.method == b"DELETE":
            turn.stop()
            self._json(200, b"{}")
            return
        if request.method != b"GET":
            raise Refusal(405, "GET or DELETE this", "method")
        offset = query.removeprefix(b"offset=")
        there = turn.since(int(offset) if offset.isdigit() else 0)
        if there is None:
            raise Refusal(404, "the beginning of this turn is no longer kept", "not_found")
        self.begin(200, turn.content_type, None)
        ended = turn.ended is not None
        if not ended:
            self._turn = turn
            turn.followers.append(self)
        self.part(there, ended)

    async def _ask_elsewhere(self, pool: Pool, request: _Request) -> None:
        """A turn that the gateway before this one may still hold: ask there, pass on what it says."""
        connection: EngineConnection | None = None
        try:
            connection = await pool.connect()
            relay = _Relay(self)
            connection.send(relay, b"%b %b HTTP/1.1\r\nHost: corral\r\n\r\n" % (request.method, request.target))
            await relay.ended.wait()
        except (OSError, TimeoutError):
            self.refuse(Refusal(404, "no such turn", "not_found"))
        finally:
            if connection is not None:
                connection.abort()

    def turn_part(self, data: bytes, last: bool) -> None:
        """A followed turn goes on."""
        if self._transport.get_write_buffer_size() > 4 << 20:
            self._transport.abort()
            return
        if last and self._turn is not None:
            self._turn.leave(self)
            self._turn = None
        self.part(data, last)

    # -------------------------------------------------------------------------------- the answer

    def _json(self, status: int, body: bytes) -> None:
        self.begin(status, b"application/json", len(body))
        self.part(body, True)

    def begin(self, status: int, content_type: bytes, length: int | None) -> None:
        """The head of an answer; without a length it is chunked, or ends with the connection in HTTP/1.0."""
        request = self._current
        if self._core.retired:
            request.keep = False
        self._framed = length is None and not request.old
        head = answer_head(status, content_type, self._framed, request.keep)
        self._head = head + (b"\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length)

    def part(self, data: bytes, last: bool) -> None:
        """A part of an answer. The head goes out with the first one: each write wakes the client."""
        if self._closed:
            return
        if self._framed:
            data = b"%x\r\n%b\r\n" % (len(data), data) if data else b""
            if last:
                data += b"0\r\n\r\n"
        if self._head:
            data = self._head + data
            self._head = b""
        if data:
            OUT.write(self._transport, data)
        if last:
            self._exchange = None
            self._busy = False
            if not self._current.keep or self._core.retired:
                self._last = True
                OUT.flush()
                self._hang_up()
            elif self._ready or self._ahead or self._continue:
                asyncio.get_running_loop().call_soon(self._next)

    def _hang_up(self) -> None:
        """Close after the answer. A refused client may still send its body: closed at once, it would find a broken
        connection instead of our answer."""
        if not self._refused:
            self._transport.close()
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)
        self._transport.write_eof()

    def refuse(self, refusal: Refusal) -> None:
        """Answer with an error."""
        if not self._closed:
            self._json(refusal.status, refusal.body())

    def break_off(self) -> None:
        """The answer cannot be completed: the missing end tells it."""
        self._exchange = None
        self._transport.abort()

    def _fail(self, refusal: Refusal) -> None:
        """Refuse and close: what follows cannot be framed."""
        if self._closed or self._last:
            return
        if self._busy:
            self._transport.abort()
            return
        self._refused = True
        self._ready.clear()
        self._ahead.clear()
        self._current = _Request()
        self._current.keep = False
        self.refuse(refusal)
