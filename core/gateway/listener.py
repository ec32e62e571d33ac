"""The client's side: who asks, what for, and the answer on its way out."""

from __future__ import annotations

import asyncio
import functools
import os
from typing import Protocol

import httptools
import msgspec

from core.gateway.core import Core
from core.gateway.errors import PHRASES, Refusal
from core.gateway.exchange import DECODE_ASKED, Exchange
from core.gateway.following import Following, Relayed
from core.gateway.framing import AHEAD_BYTES, Framer, Request
from core.gateway.outbox import OUT
from core.gateway.routes import unknown
from core.peer import peer

HEAD_S = 30.0
"""A request that has begun must be whole within this and the idle time-out."""
LINGER_S = 5.0
"""How long what a refused client still sends is dropped before its connection is closed."""
ROUTES = {path.encode(): path for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")}


@functools.lru_cache(maxsize=128)
def answer_head(status: int, content_type: bytes, chunked: bool, keep: bool) -> bytes:
    """The head of an answer without its end and without a length."""
    head = b"HTTP/1.1 %d %b\r\nContent-Type: %b\r\n" % (status, PHRASES.get(status, b"Status"), content_type)
    if chunked:
        head += b"Transfer-Encoding: chunked\r\nCache-Control: no-cache\r\n"
    return head if keep else head + b"Connection: close\r\n"


class Answering(Protocol):
    """Whoever makes the answer that a client waits for."""

    def client_gone(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class ClientConnection(asyncio.Protocol):
    """One client. Reading is never paused: a paused socket does not tell that its client has gone."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._framer = Framer(core.table, self._may)
        self._ahead = bytearray()
        self._current = Request()
        self._answering: Answering | None = None
        self._busy = False
        self._paused = False
        self._refused = False
        self._closed = False
        self._last = False
        self._framed = False
        self._unused = False
        """Nothing has come since the last sweep."""
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        try:
            _, self._uid, self._groups = peer(transport.get_extra_info("socket"))
        except OSError:
            self._uid, self._groups = -1, frozenset[int]()
        self._core.clients.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._core.clients.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.client_gone()

    def unused(self) -> None:
        """A sweep: close if nothing has come since the one before and nothing is being answered."""
        if self._unused and not self._busy and not self._refused:
            self._last = True
            self._transport.close()
        self._unused = True

    def leave(self) -> None:
        """This gateway takes nothing new: close at once if nothing is asked, else after the answer."""
        if not self._busy and not self._framer.ready and self._timer is None:
            self._last = True
            self._transport.close()

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self._paused = True
        if self._answering is not None:
            self._answering.pause()

    def resume_writing(self) -> None:
        self._paused = False
        if self._answering is not None:
            self._answering.resume()
        self._next()

    def data_received(self, data: bytes) -> None:
        self._unused = False
        if self._busy or self._last or self._paused or self._ahead or self._framer.ready:
            if not self._refused:
                self._keep_ahead(data)
            return
        try:
            request = self._framer.again(data)
        except Refusal as refusal:
            self._fail(refusal)
            return
        if request is None:
            self._feed(data)
        else:
            self._serve(request)

    def _keep_ahead(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > AHEAD_BYTES:
            self._transport.abort()

    def _feed(self, data: bytes) -> None:
        framer = self._framer
        try:
            rest = framer.feed(data)
        except Refusal as refusal:
            self._fail(refusal)
            return
        if rest:
            self._keep_ahead(rest)
        if framer.ready and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if framer.begun and self._timer is None:
            seconds = HEAD_S + self._core.table.limits.idle_timeout_s
            self._timer = asyncio.get_running_loop().call_later(seconds, self._transport.abort)
        self._next()

    def _next(self) -> None:
        """Serve what is whole, one after the other, while the client takes its answers; then read what came ahead."""
        framer = self._framer
        while not (self._busy or self._closed or self._last or self._paused):
            if framer.ready:
                self._serve(framer.ready.popleft())
            elif self._ahead:
                data = bytes(self._ahead)
                self._ahead.clear()
                self._feed(data)
            else:
                if framer.waits:
                    framer.waits = False
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                return

    # -------------------------------------------------------------------------------- one request

    def _may(self, request: Request) -> None:
        if not self._core.table.users.some(self._uid, self._groups):
            raise Refusal(403, f"uid {self._uid} may not use this gateway", "not_allowed")
        if (request.actor or request.turn) and self._uid not in (self._core.owner, 0):
            raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed")

    def may_use(self, deployment: str) -> bool:
        """By the rules of now."""
        return self._core.table.users.may(self._uid, self._groups, deployment)

    def _serve(self, request: Request) -> None:
        self._busy = True
        self._current = request
        body, request.body = request.body, b""
        try:
            path = ROUTES.get(request.target)
            if path is None:
                path = self._path(request)
            if path:
                self._post(request, path, body)
        except Refusal as refusal:
            self._turn_away(request, refusal)
        except httptools.HttpParserError:
            self._turn_away(request, Refusal(400, "the URL is malformed", "bad_request"))

    def _turn_away(self, request: Request, refusal: Refusal, deployment: str = "") -> None:
        """Refuse what no exchange has begun for."""
        path = ROUTES.get(request.target.partition(b"?")[0], "")
        self._core.folded.add(self._uid_of(request), deployment, path, refusal.status)
        self.refuse(refusal)

    def _uid_of(self, request: Request) -> int:
        """On whose behalf it is asked."""
        said = request.actor.partition(":")[0]
        return int(said) if said.isascii() and said.isdigit() else self._uid

    def _path(self, request: Request) -> str:
        """Where a request goes whose target is no plain route; an empty string for what is answered here."""
        url = httptools.parse_url(request.target)
        path = url.path or b"/"
        if path in ROUTES:
            return ROUTES[path]
        if path == b"/v1/models":
            self._models(request)
        elif path.startswith(b"/corral/turns/"):
            self._turns(request, path[14:].decode("ascii", "replace"), url.query or b"")
        else:
            raise Refusal(404, "no such route", "not_found")
        return ""

    def _post(self, request: Request, path: str, body: bytes) -> None:
        if request.method != b"POST":
            raise Refusal(405, "POST a JSON body here", "method")
        try:
            asked = DECODE_ASKED(body)
        except msgspec.DecodeError as error:
            reason = "it is not JSON" if not isinstance(error, msgspec.ValidationError) else str(error)
            raise Refusal(400, f"the body cannot be read: {reason}", "bad_request") from None
        if not self.may_use(asked.model):  # as if it were not there: whoever may not use it need not know of it
            raise unknown(asked.model)
        try:
            exchange = Exchange(
                self._core, self, path, body, asked, self._uid_of(request), request.actor, request.turn
            )  # fmt: skip
            self._answering = exchange
            exchange.start()
        except Refusal as refusal:
            self._turn_away(request, refusal, asked.model if asked.model in self._core.table.targets else "")

    def _models(self, request: Request) -> None:
        if request.method != b"GET":
            raise Refusal(405, "GET this", "method")
        rows = [
            {"id": name, "object": "model", "created": int(target.route.created_at), "owned_by": "corral"}
            for name, target in sorted(self._core.table.targets.items())
            if self.may_use(name)
        ]
        self._json(200, msgspec.json.encode({"object": "list", "data": rows}))

    def _turns(self, request: Request, id: str, query: bytes) -> None:
        core = self._core
        if self._uid not in (core.owner, 0, os.getuid()):
            raise Refusal(403, "turns are the daemon's", "not_allowed")
        turn = core.turns.get(id)
        if turn is None:
            if core.elsewhere is None:
                raise Refusal(404, "no such turn", "not_found")
            self._answering = Relayed(core, core.elsewhere, self, request.method, request.target)
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
            self._answering = Following(turn, self)
        self.part(there, ended)

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
            self._answering = None
            self._busy = False
            if not self._current.keep or self._core.retired:
                self._last = True
                OUT.flush()
                self._hang_up()
            elif self._framer.ready or self._ahead or self._framer.waits:
                asyncio.get_running_loop().call_soon(self._next)

    def untaken(self) -> int:
        """Bytes that were written and the client has not taken."""
        return self._transport.get_write_buffer_size()

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
        self._answering = None
        self._transport.abort()

    def _fail(self, refusal: Refusal) -> None:
        """Refuse and close: what follows cannot be framed."""
        if self._closed or self._last:
            return
        self._core.folded.add(self._uid, "", "", refusal.status)
        if self._busy:
            self._transport.abort()
            return
        self._refused = True
        self._framer.ready.clear()
        self._ahead.clear()
        self._current = Request()
        self._current.keep = False
        self.refuse(refusal)
