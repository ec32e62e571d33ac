"""The client's side: who asks, what for, and the answer on its way out."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import time
from typing import Protocol
from urllib.parse import unquote_to_bytes

import httptools
import msgspec

from core.gateway.apis import APIS, ROUTES, Api, shape_of
from core.gateway.asked import read
from core.gateway.core import Core
from core.gateway.crowd import place
from core.gateway.errors import PHRASES, Refusal
from core.gateway.exchange import Exchange
from core.gateway.following import Following, Relayed
from core.gateway.framing import AHEAD_BYTES, Framer, Request
from core.gateway.keys import LOCAL, Holder
from core.gateway.limits import Meter, headers
from core.gateway.outbox import OUT
from core.gateway.routes import Target, unknown
from core.peer import peer

BUFFER_BYTES = 64 << 10
"""What is written and not taken may come to before an engine is paused."""
LINGER_S = 5.0
"""How long what a refused client still sends is dropped before its connection is closed."""
PROBES = (b"/healthz", b"/readyz")
"""What a load balancer may ask without a key."""
NEEDS_KEY = b"WWW-Authenticate: Bearer\r\n"
MODELS = b"/v1/models"
_NO_ROUTE = f"no such route; there are {', '.join(api.path for api in APIS)} and {MODELS.decode()}"


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
        self._unused: bool | None = None
        """Nothing has come since the last sweep; None: nothing ever."""
        self._head = self._more = b""
        self._source = LOCAL
        self._place = self._holds = ""
        """Under which name it is counted as a connection, and of which key."""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._uid, self._groups = -1, frozenset[int]()
        end = transport.get_extra_info("socket")
        where = ""
        if end.family == socket.AF_UNIX:
            with contextlib.suppress(OSError):
                _, self._uid, self._groups = peer(end)
            if self._uid not in (self._core.owner, 0):
                where = f"uid:{self._uid}"
        else:
            self._source = transport.get_extra_info("peername")[0]
            where = place(self._source)
            # Over TLS it is eight times as much, and each connection may be left with it.
            self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
        if where and not self._core.places.enter(where, self._core.table.limits.connections_per_address):
            self._closed = True
            self._transport.abort()
            return
        self._place = where
        self._core.clients.add(self)
        self._core.fresh[self] = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._core.clients.discard(self)
        self._core.fresh.pop(self, None)
        if self._place:
            self._core.places.leave(self._place)
        if self._holds:
            self._core.holders.leave(self._holds)
        if self._timer is not None:
            self._timer.cancel()
        self._gone()

    def _gone(self) -> None:
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.client_gone()

    def unused(self) -> None:
        """A sweep: close if nothing has come since the one before and nothing is being answered. What was closed at an
        earlier sweep, and still has an answer that its client does not take, is cut."""
        if self._unused is None:
            return  # `silent` looks after it
        if self._unused and self._last:
            self._transport.abort()
        elif self._unused and not self._busy and not self._refused:
            self._last = True
            self._transport.close()
        self._unused = True

    def silent(self) -> None:
        """It is due to have asked something: close if it has not."""
        if self._unused is None:
            self._last = True
            self._transport.close()

    def leave(self) -> None:
        """This gateway takes nothing new: close at once if nothing is asked, else after the answer."""
        if not self._busy and not self._framer.ready and self._timer is None:
            self._last = True
            self._transport.close()

    def eof_received(self) -> bool:
        """Whoever says that he sends no more has gone: decision 0002. At once: the transport tells that the connection
        is lost only when its client has taken what was written, or never."""
        self._gone()
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

    def _late(self, seconds: float) -> None:
        """A request has begun and is not whole in time."""
        self._fail(Refusal(408, f"the request was not whole within {seconds:g} s", "timeout"))

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
            limits = self._core.table.limits
            seconds = limits.request_timeout_s + limits.idle_timeout_s
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late, seconds)
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
        """Raises `Refusal` for who may ask nothing at all. A key decides, wherever it comes from; a bad one never falls
        back to who is at the other end."""
        if request.key:
            request.holder = holder = self._core.table.keys.find(request.key, self._source)
            if holder.key.id != self._holds:
                self._hold(holder)
            if request.actor or request.turn or request.groups is not None:
                raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed")
            return
        if self._source != LOCAL:
            if request.target in PROBES:
                return
            raise Refusal(401, "an API key is needed: Authorization: Bearer KEY", "invalid_api_key", headers=NEEDS_KEY)
        if request.actor or request.turn or request.groups is not None:
            if self._uid in (self._core.owner, 0):
                return  # the daemon has looked at the rights of the one on whose behalf it asks
            raise Refusal(403, "X-Corral headers are the daemon's", "not_allowed")
        if not self._core.table.users.some(self._uid, self._groups):
            raise Refusal(403, f"uid {self._uid} may not use this gateway", "not_allowed")

    def _hold(self, holder: Holder) -> None:
        """Count this connection as one of the key's, and as none any more of the key before. Raises `Refusal`."""
        core, most = self._core, self._core.table.limits.connections_per_key
        if not core.holders.enter(holder.key.id, most):
            raise Refusal(
                429, f"the key {holder.key.name} has {most} connections open: close one", "too_many_connections",
                headers=b"Retry-After: 1\r\n",
            )  # fmt: skip
        if self._holds:
            core.holders.leave(self._holds)
        self._holds = holder.key.id

    def may_use(self, deployment: str) -> bool:
        """By the keys and rules of now."""
        key = self._current.key
        if not key:
            return _on_behalf(self._current) or self._core.table.users.may(self._uid, self._groups, deployment)
        keys = self._core.table.keys
        try:
            return keys.find(key, self._source).may_use(deployment, keys.now())
        except Refusal:
            return False

    def _serve(self, request: Request) -> None:
        self._busy = True
        self._current = request
        request.id = self._core.new_id()
        body, request.body = request.body, b""
        try:
            api = ROUTES.get(request.target) or self._path(request)
            if api is not None:
                request.shape = api.shape
                self._post(request, api, body)
        except Refusal as refusal:
            self._turn_away(request, refusal)
        except httptools.HttpParserError:
            self._turn_away(request, Refusal(400, "the URL is malformed", "bad_request"))
        except msgspec.DecodeError:  # in a part that is read only when the body is changed
            self._turn_away(request, Refusal(400, "the body cannot be read: it is not JSON", "bad_request"))
        except RecursionError:  # how deep the JSON reader follows depends on where it is called from
            self._turn_away(request, Refusal(400, "the body is nested too deeply", "bad_request"))

    def _turn_away(self, request: Request, refusal: Refusal, deployment: str = "") -> None:
        """Refuse what no exchange has begun for."""
        api = ROUTES.get(request.target.partition(b"?")[0])
        key = request.holder.key.id if request.holder is not None else ""
        self._core.folded.add(self._uid_of(request), deployment, api.path if api else "", refusal.status, key)
        self.refuse(refusal)

    def _uid_of(self, request: Request) -> int:
        """On whose behalf it is asked."""
        if request.holder is not None:
            return request.holder.key.uid
        said = request.actor.partition(":")[0]
        return int(said) if said.isascii() and said.isdigit() else self._uid

    def _path(self, request: Request) -> Api | None:
        """Where a request goes whose target is no plain route; None for what is answered here."""
        url = httptools.parse_url(request.target)
        path = url.path or b"/"
        if path in ROUTES:
            return ROUTES[path]
        if request.target == b"*":
            raise Refusal(405, "there are no options", "method", allow="GET, HEAD, POST")
        if path == MODELS or path.startswith(MODELS + b"/"):
            self._models(request, path[len(MODELS) + 1 :])
        elif path in PROBES:
            self._probe(request, path)
        elif path.startswith(b"/corral/turns/"):
            self._turns(request, path[14:].decode("ascii", "replace"), url.query or b"")
        else:
            raise Refusal(404, _NO_ROUTE, "not_found")
        return None

    def _post(self, request: Request, api: Api, body: bytes) -> None:
        if request.method != b"POST":
            self._other_method(request, "POST", "POST a JSON body here")
            return
        holder = request.holder
        if holder is not None and not holder.may_ask(api.scope):
            raise Refusal(403, f"the key {holder.key.name} may not ask {api.path}", "not_allowed")
        asked = read(api, body)
        table = self._core.table
        if holder is not None:  # found for this very request: not looked for again
            may = holder.may_use(asked.model, table.keys.now())
        else:
            may = _on_behalf(request) or table.users.may(self._uid, self._groups, asked.model)
        if not may:  # as if it were not there: whoever may not use it need not know of it
            raise unknown(asked.model)
        try:
            exchange = Exchange(
                self._core, self, api, body, asked, self._uid_of(request), request.actor, request.turn, holder,
                request.id, request.deadline,
            )  # fmt: skip
            self._answering = exchange
            request.meters = self._limiting(request, asked.model)
            exchange.start(asked, request.meters)
        except Refusal as refusal:
            self._turn_away(request, refusal, asked.model if asked.model in table.targets else "")

    def _limiting(self, request: Request, deployment: str) -> tuple[Meter, ...]:
        """What limits apply: those of whoever asks, and those of the deployment."""
        if not self._core.table.subjects.any:
            return ()
        return self._whose(request) + self._core.table.target(deployment).meters

    def _whose(self, request: Request) -> tuple[Meter, ...]:
        """The limits of the key and its owner, or of the person."""
        if request.holder is not None:
            return request.holder.meters
        groups = self._groups if request.groups is None else request.groups
        return self._core.table.subjects.of_person(self._uid_of(request), groups)

    def _probe(self, request: Request, path: bytes) -> None:
        """For load balancers: it lives, and it knows what to route."""
        if request.method not in (b"GET", b"HEAD"):
            self._other_method(request, "GET, HEAD", "GET this")
            return
        table = self._core.table
        ready = path == b"/healthz" or (table.snapshot.n > 0 and not table.blocked)
        self._json(200 if ready else 503, b'{"status":"ok"}' if ready else b'{"status":"not ready"}')

    def _other_method(self, request: Request, allow: str, todo: str) -> None:
        """OPTIONS says what a route takes; anything else is 405. Raises `Refusal`."""
        if request.method != b"OPTIONS":
            raise Refusal(405, todo, "method", allow=allow)
        self._more = f"Allow: {allow}, OPTIONS\r\n".encode()
        self.begin(200, b"application/json", 0)
        self.part(b"", True)

    def _models(self, request: Request, name: bytes) -> None:
        """The deployments that whoever asks may use, or the one of this name."""
        if request.method not in (b"GET", b"HEAD"):
            self._other_method(request, "GET, HEAD", "GET this")
            return
        holder = request.holder
        if holder is not None and not holder.may_ask("models"):
            raise Refusal(403, f"the key {holder.key.name} may not ask /v1/models", "not_allowed")
        if self._core.table.subjects.any:
            request.meters = self._whose(request)
        targets = self._core.table.targets
        if name:
            wanted = unquote_to_bytes(name).decode("utf-8", "replace")
            if wanted not in targets or not self.may_use(wanted):
                raise unknown(wanted)
            self._json(200, msgspec.json.encode(_model(wanted, targets[wanted])))
            return
        rows = [_model(name, target) for name, target in sorted(targets.items()) if self.may_use(name)]
        self._json(200, msgspec.json.encode({"object": "list", "data": rows}))

    def _turns(self, request: Request, id: str, query: bytes) -> None:
        core = self._core
        if request.method not in (b"GET", b"DELETE"):
            raise Refusal(405, "GET or DELETE this", "method", allow="GET, DELETE")
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

    def _json(self, status: int, body: bytes, headers: bytes = b"", queued: bytes = b"") -> None:
        """A whole answer. One to HEAD has no body: a strict client would take it for the next answer."""
        self._more = headers
        self.begin(status, b"application/json", len(body), queued)
        self.part(b"" if self._current.method == b"HEAD" else body, True)

    def begin(self, status: int, content_type: bytes, length: int | None, queued: bytes = b"") -> None:
        """The head of an answer; without a length it is chunked, or ends with the connection in HTTP/1.0. `queued`:
        headers about its time in the queue."""
        request = self._current
        if self._core.retired:
            request.keep = False
        self._framed = length is None and not request.old
        head = answer_head(status, content_type, self._framed, request.keep)
        more, self._more = self._more, b""
        if not more and request.meters:
            more = headers(request.meters, self._core.table.subjects.clock)
        if more or queued:
            head += more + queued
        head += b"x-request-id: %b\r\n" % (id := request.id.encode())
        if request.shape == "messages":
            head += b"request-id: %b\r\n" % id
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
        if self._transport.can_write_eof():  # not over TLS, where the answer's length has to do
            self._transport.write_eof()

    def refuse(self, refusal: Refusal, queued: bytes = b"") -> None:
        """Answer with an error. Whoever is turned away for who he is goes into the audit trail."""
        if refusal.status in (401, 403):
            source = "" if self._source == LOCAL else f", from {self._source}"
            self._core.denials.note(self._uid, refusal.message + source, time.time())
        if not self._closed:
            shape = self._current.shape
            self._json(refusal.status_in(shape), refusal.body(shape), refusal.headers, queued)

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
        self._current.id = self._core.new_id()
        self._current.shape = shape_of(self._framer.target)
        self.refuse(refusal)


def _on_behalf(request: Request) -> bool:
    """Does the daemon ask for somebody whose rights it has looked at? `_may` lets nobody else say so."""
    return bool(request.actor or request.turn)


def _model(name: str, target: Target) -> dict[str, str | int]:
    """A deployment as OpenAI's clients read a model."""
    return {"id": name, "object": "model", "created": int(target.route.created_at), "owned_by": "corral"}
