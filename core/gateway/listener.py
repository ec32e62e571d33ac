"""The client's side: who asks, what for, and the answer on its way out."""

from __future__ import annotations

import asyncio
import functools
import time
from typing import Any, Protocol, cast

import httptools
import msgspec

from core.gateway.answers import answer, other_method
from core.gateway.apis import ROUTES, Api, shape_of
from core.gateway.asked import read
from core.gateway.asker import Asker, may_ask, on_behalf
from core.gateway.core import Core
from core.gateway.errors import PHRASES, Refusal
from core.gateway.exchange import Exchange
from core.gateway.framing import AHEAD_BYTES, Framer, Request
from core.gateway.intake import FREE_BYTES
from core.gateway.keys import LOCAL
from core.gateway.limits import headers
from core.gateway.outbox import OUT
from core.gateway.routes import unknown

BUFFER_BYTES = 64 << 10
"""What is written and not taken may come to before an engine is paused."""
LINGERING = 128
"""Connections at a time that are told that there is no room for them; more are closed at once."""
LINGER_S = 5.0
"""How long what a refused client still sends is dropped before its connection is closed."""


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


def serve(core: Core) -> asyncio.Protocol:
    """A connection for a loop, which goes by what a protocol has and not by its class."""
    return cast(asyncio.Protocol, ClientConnection(core))


class ClientConnection:
    """One client, as a loop's protocol (not derived from asyncio's: decision 0012). Reading is never paused: a paused
    socket does not tell that its client has gone."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._transport: asyncio.Transport = None  # type: ignore[assignment]
        self._asker = Asker(core)
        self._framer = Framer(core.table, self._asker.may)
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
        self._place = ""
        """Under which name it is counted as a connection."""
        self._stranger = False
        """There it stands among those that have asked nothing yet."""
        self._lingers = False
        """It is told that there is no room for it."""
        self._timer: asyncio.TimerHandle | None = None
        self._arriving: Request | None = None
        """The request whose body is on its way and was let in."""
        self._caller = ""
        """As whose it is counted."""
        self._counted = 0
        """Bytes of it that are."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        where = self._asker.meet(transport)
        if self._asker.source != LOCAL:
            # Over TLS it is eight times as much, and each connection may be left with it.
            self._transport.set_write_buffer_limits(high=BUFFER_BYTES)
        if where and not self._core.places.enter(where, self._core.table.limits.connections_per_address, self):
            self._no_room(where)
            return
        self._place, self._stranger = where, bool(where)
        self._core.clients.add(self)
        self._core.fresh[self] = time.monotonic()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._core.clients.discard(self)
        self._core.fresh.pop(self, None)
        if self._place:
            self._core.places.leave(self._place, self)
        if self._lingers:
            self._core.lingering -= 1
        self._asker.gone()
        if self._timer is not None:
            self._timer.cancel()
        self._arrived()
        self._framer.drop()
        self._gone()

    def _gone(self) -> None:
        answering, self._answering = self._answering, None
        if answering is not None:
            answering.client_gone()

    def _no_room(self, where: str) -> None:
        """All of its place are busy: say so, in HTTP as long as not too many are told at a time."""
        if self._core.lingering >= LINGERING:
            self._closed = True
            self._transport.abort()
            return
        self._lingers = True
        self._core.lingering += 1
        most = self._core.table.limits.connections_per_address
        self._fail(Refusal(
            429, f"{most} connections from {where} are open (gateway.connections_per_address), and all of them busy:"
            " close one, or come again when an answer has ended", "too_many_connections", headers=b"Retry-After: 1\r\n",
        ))  # fmt: skip

    def idle(self) -> bool:
        """Would nobody miss it? Of those that have asked nothing yet that is every one."""
        if self._stranger:
            return not self._busy
        if self._busy or self._framer.begun or self._timer is not None or len(self._framer.ready) or len(self._ahead):
            return False
        return self._transport.get_write_buffer_size() == 0

    def evict(self) -> None:
        """Make room for a new one of its place."""
        self._place = ""
        self._last = True
        self._transport.abort()

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
            self._arrived()
        if framer.begun and self._timer is None:
            limits = self._core.table.limits
            seconds = limits.request_timeout_s + limits.idle_timeout_s
            self._timer = asyncio.get_running_loop().call_later(seconds, self._late, seconds)
        if self._stranger and framer.request.frozen and self._asker.known:
            self._stranger = False
            self._core.places.met(self._place, self)
        if framer.begun and framer.request.frozen and not framer.ready:
            try:
                self._arrive()
            except Refusal as refusal:
                self._fail(refusal, framer.request)
                return
        self._next()

    def _arrive(self) -> None:
        """A body has begun and is not whole: see whether it may be asked before more of it comes, and count it.
        Raises `Refusal`."""
        framer, asker, core = self._framer, self._asker, self._core
        request, got = framer.request, framer.got
        large = framer.length > FREE_BYTES
        first = self._arriving is not request and (large or framer.waits)
        if first:
            asker.begin(request)
            self._arriving = request
        if first or got > self._counted:
            self._caller = self._caller or asker.called(request)
            more, ahead = got - self._counted, framer.length - got if first else 0
            core.intake.take(self._caller, self._counted, more, core.table.limits, ahead=ahead)
            self._counted = got
        if large:
            framer.store()

    def _arrived(self) -> None:
        """The body is whole, or will not be."""
        if self._counted:
            self._core.intake.leave(self._caller, self._counted)
            self._counted = 0
        self._arriving, self._caller = None, ""

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

    def barred(self, deployment: str) -> Refusal | None:
        """Why its request may go on no more, by the keys and rules of now; None: it may."""
        return self._asker.barred(self._current, deployment)

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
        self._count(request, refusal, deployment)
        self.refuse(refusal)

    def _count(self, request: Request, refusal: Refusal, deployment: str = "") -> None:
        """Usage has it as refused."""
        api = ROUTES.get(request.target.partition(b"?")[0])
        key, owner = (request.holder.key.id, request.holder.key.owner) if request.holder is not None else ("", "")
        uid, path = self._asker.uid_of(request), api.path if api else ""
        self._core.folded.add(uid, deployment, path, refusal.status, key, owner)

    def _path(self, request: Request) -> Api | None:
        """Where a request goes whose target is no plain route; None for what is answered here."""
        url: Any = httptools.parse_url(request.target)  # its stub does not say that a part may be None
        path: bytes | None = url.path
        query: bytes | None = url.query
        if path in ROUTES:
            return ROUTES[path]
        answer(self._core, self._asker, self, request, path or b"/", query or b"")
        return None

    def _post(self, request: Request, api: Api, body: bytes) -> None:
        if request.method != b"POST":
            other_method(self, request, "POST", "POST a JSON body here")
            return
        holder = request.holder
        may_ask(holder, api)
        asked = read(api, body)
        table, asker = self._core.table, self._asker
        if holder is not None:  # found for this very request: not looked for again
            may = holder.may_use(asked.model, table.keys.now())
        else:
            may = on_behalf(request) or table.users.may(asker.uid, asker.groups, asked.model)
        if not may:  # as if it were not there: whoever may not use it need not know of it
            raise unknown(asked.model)
        try:
            exchange = Exchange(
                self._core, self, api, body, asked, asker.uid_of(request), request.actor, request.turn, holder,
                request.id, request.deadline,
            )  # fmt: skip
            self._answering = exchange
            request.meters = asker.limiting(request, asked.model)
            exchange.start(asked, request.meters)
        except Refusal as refusal:
            self._turn_away(request, refusal, asked.model if asked.model in table.targets else "")

    # -------------------------------------------------------------------------------- the answer

    def follows(self, answering: Answering) -> None:
        """The answer is a turn's that somebody else began."""
        self._answering = answering

    def json(self, status: int, body: bytes, headers: bytes = b"", queued: bytes = b"") -> None:
        """A whole answer. One to HEAD has no body: a strict client would take it for the next answer."""
        self._more = headers
        self.begin(status, b"application/json", len(body), queued)
        self.part(b"" if self._current.method == b"HEAD" else body, True)

    def begin(self, status: int, content_type: bytes, length: int | None, queued: bytes = b"") -> None:
        """The head of an answer; without a length it is chunked, or ends with the connection in HTTP/1.0. `queued`:
        headers about its time in the queue."""
        self._framed = length is None and not self._current.old
        head = self._head_of(status, content_type, self._framed, queued)
        self._head = head + (b"\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length)

    def whole(self, status: int, content_type: bytes, body: bytes, queued: bytes = b"") -> None:
        """The same as to begin an answer and to pass on its only part."""
        if not self._closed:
            self._framed = False
            head = self._head_of(status, content_type, False, queued)
            OUT.write(self._transport, b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
            self._answered()

    def _head_of(self, status: int, content_type: bytes, chunked: bool, queued: bytes) -> bytes:
        """The head of an answer without its length and its end."""
        request = self._current
        if self._core.retired:
            request.keep = False
        head, id = answer_head(status, content_type, chunked, request.keep), request.id.encode()
        more = self._more
        if more:
            self._more = b""
        elif request.meters:
            more = headers(request.meters, self._core.table.subjects.clock)
        if request.shape == "messages":
            more += b"request-id: %b\r\n" % id
        return b"%b%b%bx-request-id: %b\r\n" % (head, more, queued, id)

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
            self._answered()

    def _answered(self) -> None:
        """All of an answer has been written."""
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
            asker = self._asker
            told = asker.source == LOCAL or refusal.message.endswith(f" from {asker.source}")
            reason = refusal.message if told else f"{refusal.message}, from {asker.source}"
            holder = self._current.holder
            uid, key = (holder.key.uid, holder.key.id) if holder is not None else (asker.uid, "")
            if refusal.key is not None:
                uid, key = refusal.key
            self._core.denials.note(uid, reason, time.time(), key)
        if not self._closed:
            shape = self._current.shape
            self.json(refusal.status_in(shape), refusal.body(shape), refusal.headers, queued)

    def break_off(self) -> None:
        """The answer cannot be completed: the missing end tells it."""
        self._answering = None
        self._transport.abort()

    def _fail(self, refusal: Refusal, request: Request | None = None) -> None:
        """Refuse and close: what follows cannot be framed, or is not wanted. `request`: the one whose body is not."""
        if self._closed or self._last:
            return
        self._arrived()
        self._framer.drop()
        self._count(request or Request(), refusal)
        if self._busy:
            self._transport.abort()
            return
        self._refused = True
        self._framer.ready.clear()
        self._ahead.clear()
        self._current = Request()
        self._current.keep = False
        self._current.id = self._core.new_id()
        self._current.shape = shape_of(self._framer.request.target)
        self._current.holder = request.holder if request is not None else None
        self.refuse(refusal)
