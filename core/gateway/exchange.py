"""One request from its seat to its end: queue, engine, answer, time-outs, and the line of usage."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from typing import Protocol

import msgspec

from core.gateway import wire
from core.gateway.admission import admit
from core.gateway.apis import Api
from core.gateway.asked import Asked
from core.gateway.core import Core
from core.gateway.counting import counts_of
from core.gateway.errors import Refusal, as_messages
from core.gateway.keys import Holder
from core.gateway.limits import BYTES_A_TOKEN, Hold, Meter
from core.gateway.opening import opened
from core.gateway.queue import Caller, Waiter
from core.gateway.routes import Seat, Target
from core.gateway.sessions import session
from core.gateway.turns import ALONE_S, Turn
from core.gateway.upstream import EngineConnection

ERROR_BYTES = 64 << 10
"""Of an engine's error that is put into another shape."""
AGAIN_S = 3.0
"""For so long a request that no replica took is tried again: within it the daemon withdraws one that died."""
PAUSE_S = 0.25
LOSSES = 2
"""So many replicas may a request be sent to that end before they answer: it may be what ends them."""
_NOWHERE = wire.ReplicaRoute(id="", launch="", endpoint="")
"""Of a request that no replica took."""


class Client(Protocol):
    """Where an answer goes."""

    def begin(self, status: int, content_type: bytes, length: int | None, queued: bytes = b"") -> None: ...
    def part(self, data: bytes, last: bool) -> None: ...
    def refuse(self, refusal: Refusal, queued: bytes = b"") -> None: ...
    def break_off(self) -> None: ...
    def may_use(self, deployment: str) -> bool: ...


def with_usage(body: bytes, asked: Asked) -> bytes:
    """The body with stream_options.include_usage, else unchanged."""
    if b'"stream_options"' not in body:
        return body.rstrip()[:-1] + b',"stream_options":{"include_usage":true}}'
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    options = msgspec.json.decode(fields.get("stream_options", msgspec.Raw(b"null"))) or {}
    fields["stream_options"] = msgspec.Raw(msgspec.json.encode({**options, "include_usage": True}))
    return msgspec.json.encode(fields)


def with_progress(body: bytes) -> bytes:
    """The body asking how much of the prompt was read."""
    if b'"return_progress"' not in body:
        return body.rstrip()[:-1] + b',"return_progress":true}'
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["return_progress"] = msgspec.Raw(b"true")
    return msgspec.json.encode(fields)


def with_model(body: bytes, model: str) -> bytes:
    """The body asking for another model, else as it was."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    fields["model"] = msgspec.Raw(msgspec.json.encode(model))
    return msgspec.json.encode(fields)


@functools.lru_cache(maxsize=256)
def request_head(prefix: str, path: str, host: str, secret: str) -> bytes:
    """The head of a request to an engine, up to the number of its body's bytes."""
    key = f"Authorization: Bearer {secret}\r\n" if secret else ""
    head = f"POST {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}Content-Length: "
    return head.encode("latin-1")


def _not_served(route: wire.Route, api: Api) -> Refusal:
    there = ", ".join(route.serves) or "nothing"
    return Refusal(404, f"deployment {route.name} does not serve {api.path}; it serves {there}", "route_not_served")


class Exchange:
    """One request. The client may go while a turn goes on."""

    __slots__ = (
        "_actor", "_again", "_alone", "_api", "_began", "_body", "_client", "_connecting", "_connection", "_core",
        "_counts", "_deadline", "_done", "_error", "_failed", "_first", "_fresh", "_hold", "_holder", "_id", "_last",
        "_lost", "_model", "_paused", "_prompt", "_queued", "_reads", "_seat", "_seated", "_sent", "_session", "_sse",
        "_status", "_target", "_token", "_tried", "_turn", "_turn_id", "_uid", "_unopened", "_waiter",
    )  # fmt: skip

    def __init__(
        self, core: Core, client: Client, api: Api, body: bytes, asked: Asked, uid: int, actor: str, turn: str,
        holder: Holder | None = None, id: str = "", deadline: float = math.inf,
    ) -> None:  # fmt: skip
        """`deadline`: seconds after which its client wants no answer any more that has not begun."""
        self._core = core
        self._client: Client | None = client
        self._api = api
        self._id = id or core.new_id()
        self._model = asked.model  # not `asked`: its raw parts would keep the body
        self._uid = uid
        self._actor = actor
        self._turn_id = turn
        self._turn: Turn | None = None
        self._seat: Seat | None = None
        self._tried: Seat | None = None
        self._again: asyncio.TimerHandle | None = None
        self._failed = 0.0
        """When a replica first did not take it; 0: none has."""
        self._lost = 0
        self._waiter: Waiter[Seat] | None = None
        """Its place in the queue."""
        self._queued: Waiter[Seat] | None = None
        """The place that it had there last."""
        self._connection: EngineConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._fresh = self._sent = False
        self._paused = False
        self._began = self._last = time.monotonic()
        self._deadline = self._began + deadline
        self._alone: asyncio.TimerHandle | None = None
        self._seated: float | None = None
        self._first: float | None = None
        self._token: float | None = None
        self._status = 0
        self._sse = False
        self._done = False
        self._target: Target = core.table.target(asked.model)
        route = self._target.route
        if api.path not in route.serves:
            raise _not_served(route, api)
        if core.spool.full and not core.table.limits.serve_uncounted:
            raise Refusal(503, "usage cannot be recorded: the spool is full; start the daemon", "spool_full")
        stream = bool(asked.stream) and api.answers
        wants = asked.stream_options is not None and bool(asked.stream_options.include_usage)
        inject = stream and not wants and route.stream_usage and api.options
        progress = stream and route.prompt_progress and api.options
        wants_progress = bytes(asked.return_progress) == b"true"
        self._body = with_usage(body, asked) if inject else body
        if progress and not wants_progress:
            self._body = with_progress(self._body)
        if route.asks_for:
            self._body = with_model(self._body, route.asks_for)
        self._reads = progress
        self._counts = counts_of(api, stream=stream, cut=inject, cut_progress=progress and not wants_progress)
        self._unopened = stream and api.shape != "openai"
        self._error: bytearray | None = None
        """What came of an engine's error that is not in the client's shape."""
        self._holder, self._prompt = holder, len(body) // BYTES_A_TOKEN + 1
        self._hold: Hold | None = None
        if holder is not None:
            self._uid, self._actor = holder.key.uid, holder.key.owner
        several = len(self._target.seats) > 1 and not route.embedding
        self._session = session(self._caller, body) if several else 0

    def start(self, asked: Asked, meters: tuple[Meter, ...] = ()) -> None:
        """Reserve what it may use by all `meters`, and find a seat, or queue. Raises `Refusal`."""
        if self._turn_id:
            self._turn = self._core.turns.begin(self._turn_id, self.stop)
            if self._turn is None:
                raise Refusal(409, f"turn {self._turn_id[:64]} is known already", "turn_exists")
        if meters:
            subjects, ctx = self._core.table.subjects, self._target.route.ctx_per_slot
            self._hold, self._body = admit(subjects, meters, self._api, self._body, asked, ctx)
            self._hold.used = self._used
        self._core.add(self)
        self._find()

    @property
    def _caller(self) -> Caller:
        """In whose line it waits."""
        return self._holder.key.id if self._holder is not None else self._uid

    def _find(self) -> None:
        table, target = self._core.table, self._target
        try:
            seat = table.take(target, self._session)
            if seat is None:
                waiter = Waiter(self._caller, self._sit, self._refused, self._turn_id, self._session)
                left = self._deadline - time.monotonic()
                table.wait(target, waiter, left, again=self._tried is not None)
                self._waiter = self._queued = waiter
                return
        except Refusal as refusal:
            self._refused(refusal)
            return
        self._sit(seat)

    def _sit(self, seat: Seat) -> None:
        self._waiter = None
        self._seat = seat
        self._seated = self._last = now = time.monotonic()
        connection = seat.pool.get(now)
        if connection is not None:
            self._send(connection, fresh=False)
        else:
            self._connect()

    def _connect(self) -> None:
        self._connecting = self._core.start(self._open())

    async def _open(self) -> None:
        assert self._seat is not None
        try:
            connection = await self._seat.pool.connect()
        except (OSError, TimeoutError):
            self._connecting = None
            if not self._done:
                self._no_engine()
            return
        self._connecting = None
        if self._done:
            connection.abort()
        else:
            self._send(connection, fresh=True)

    def _send(self, connection: EngineConnection, *, fresh: bool) -> None:
        assert self._seat is not None
        seat = self._seat
        route = seat.route
        self._connection, self._fresh, self._sent = connection, fresh, True
        head = request_head(route.prefix, self._api.path, seat.pool.host, route.secret)
        connection.send(self, head + b"%d\r\n\r\n" % len(self._body), self._body)
        if self._paused:
            connection.pause()

    def _no_engine(self) -> None:
        """The replica did not take the request: try another one once, then wait a moment for one that is on its way."""
        seat, self._seat = self._seat, None
        assert seat is not None
        seat.errors += 1
        if self._sent:
            self._sent, self._lost = False, self._lost + 1
        table = self._core.table
        table.shun(self._target, seat)
        now = time.monotonic()
        self._give_back(seat, now)
        self._failed = self._failed or now
        first, self._tried, self._seated = self._tried is None, seat, None
        if self._lost >= LOSSES:
            self._refused(Refusal(502, f"replica {seat.route.id} does not answer", "replica_died"), "replica-died")
        elif first and any(each is not seat and not each.route.draining for each in self._target.seats):
            self._find()
        elif now < self._failed + AGAIN_S:
            self._again = asyncio.get_running_loop().call_later(PAUSE_S, self._find)
        else:
            self._refused(Refusal(502, f"replica {seat.route.id} does not answer", "replica_died"), "replica-died")

    # -------------------------------------------------------------------------------- what the engine says

    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None:
        self._status = status
        self._body = b""
        self._sse = content_type.startswith(b"text/event-stream")
        self._first = self._last = time.monotonic()
        if not self._reads:
            self._begun()
        if self._turn is not None:
            self._turn.content_type = content_type
        if status >= 400 and self._api.shape == "messages":
            self._error = bytearray()
        elif self._client is not None:
            self._client.begin(status, content_type, None if self._sse else length, self._told())

    def _begun(self) -> None:
        """The answer has begun: with its head, or where the engine tells of the prompt first, with its first token."""
        if self._seat is not None and self._seated is not None:
            self._seat.ttft_ms = (self._last - self._seated) * 1000

    def answer_part(self, data: bytes, last: bool) -> None:
        self._last = time.monotonic()
        counts, seat, client = self._counts, self._seat, self._client
        before = counts.events
        data = counts.part(data, last)
        if self._unopened and data and self._sse:
            data = self._opened(data)
        if self._error is not None:
            data = self._other_error(data, last)
        if self._token is None and counts.events:
            self._token = self._last
            if self._reads:
                self._reads = False
                self._begun()
        if seat is not None:
            if counts.events:
                seat.tokens += counts.events - before
            elif last and counts.answer:
                seat.tokens += counts.answer
        if data or last:  # what was for us alone wakes nobody
            if self._turn is None and client is not None:
                client.part(data, last)
            else:
                self._pass(data, last)
        if last and not self._done:
            self._connection = None
            self._end("ok" if self._status < 400 else "error")

    def _opened(self, data: bytes) -> bytes:
        """The beginning of a stream with the event that its clients wait for first."""
        made = opened(self._api.shape, self._model, self._id, data)
        if made is None:
            return data
        self._unopened = False
        return made

    def _other_error(self, data: bytes, last: bool) -> bytes:
        """An engine's error, at its end, as the client's API has it."""
        assert self._error is not None
        if len(self._error) < ERROR_BYTES:
            self._error += data
        if not last:
            return b""
        made = as_messages(self._status, bytes(self._error))
        if self._client is not None:
            self._client.begin(self._status, b"application/json", len(made))
        return made

    def answer_lost(self) -> None:
        if self._done:
            return
        fresh, self._connection = self._fresh, None
        if not self._status:
            # An engine closes idle connections, which may cross a request: that is asked again on a new one, of the
            # same replica. On a new one there is no such excuse.
            if fresh:
                self._no_engine()
            else:
                self._connect()
            return
        if self._seat is not None:
            self._seat.errors += 1
        how = "was stopped" if self._seat is not None and self._seat.route.draining else "died"
        self._cut(Refusal(502, f"replica {self._replica()} {how} while it answered", "replica_died"), "replica-died")

    def _pass(self, data: bytes, last: bool) -> None:
        if self._turn is not None and not self._turn.add(data, last, heard=self._client is not None):
            self.stop("nobody came back for it, and it outgrew what is kept")
        if self._client is not None:
            self._client.part(data, last)

    # -------------------------------------------------------------------------------- what the client does

    def client_gone(self) -> None:
        """The client has gone: its slot is freed at once, unless this is a turn."""
        self._client = None
        if self._done:
            return
        if self._turn is not None:
            self._turn.left_at = time.monotonic()
            self._left_alone()
            self.resume()
        else:
            self._end("client-gone")

    def _left_alone(self) -> None:
        """Stop the turn when nobody has listened for `ALONE_S`; whoever follows it meanwhile keeps it running."""
        if self._turn is None or self._done:
            return
        left = ALONE_S - self._turn.alone()
        if left <= 0:
            self.stop(f"nobody came back for it within {ALONE_S:.0f} s")
        else:
            self._alone = asyncio.get_running_loop().call_later(left, self._left_alone)

    def pause(self) -> None:
        """The client has enough for now."""
        self._paused = True
        self._last = time.monotonic()
        if self._connection is not None:
            self._connection.pause()

    def resume(self) -> None:
        """The client takes more."""
        self._paused = False
        self._last = time.monotonic()
        if self._connection is not None:
            self._connection.resume()

    # -------------------------------------------------------------------------------- how it ends

    def stop(self, why: str = "") -> None:
        """Stop a turn, or a request when the gateway ends."""
        if not self._done:
            reason = f"the answer was stopped: {why}" if why else "the answer was stopped"
            self._cut(Refusal(503, reason, "stopped"), "client-gone")

    def obey(self) -> None:
        """Rights have changed: end what its client may not have any more."""
        client, name = self._client, self._target.route.name
        if client is not None and not self._done and not client.may_use(name):
            self._cut(Refusal(403, f"the right to use {name} was taken away", "not_allowed"), "refused")

    def _refused(self, refusal: Refusal, outcome: str = "refused") -> None:
        if self._status:
            self._cut(refusal, outcome)
            return
        self._status = refusal.status
        if self._turn is not None:
            self._turn.content_type = b"application/json"
            self._turn.add(refusal.body(), True)
        client = self._client
        told = self._told()
        self._end(outcome)
        if client is not None:
            client.refuse(refusal, told)

    def _told(self) -> bytes:
        """Headers about its time in the queue, if it had one."""
        if self._queued is None:
            return b""
        return self._queued.headers((self._seated or time.monotonic()) - self._began)

    def _cut(self, refusal: Refusal, outcome: str) -> None:
        """End an answer early: an error event in a stream, a closed connection else."""
        if not self._status:
            self._refused(refusal, outcome)
            return
        client = self._client
        if self._sse:
            self._pass(refusal.event(self._api.shape), True)
        elif client is not None:
            client.break_off()
        self._end(outcome)

    def look(self, now: float, limits: wire.GatewayLimits) -> None:
        """Look whether a time-out is over. Time in the queue has one of its own."""
        if self._done or self._seated is None:
            return
        begun = self._status and not self._reads
        seconds = limits.idle_timeout_s if begun else limits.first_byte_timeout_s
        if now < self._last + seconds:
            if now < self._deadline or self._status:
                return
            seconds = self._deadline - self._began
        if self._paused and self._client is not None:
            self._client.break_off()
            self.client_gone()
            return
        what = "nothing came" if begun else "the first byte did not come"
        self._cut(Refusal(504, f"{what} from replica {self._replica()} for {seconds:g} s", "timeout"), "timeout")

    def _used(self) -> tuple[int, int]:
        """Tokens in and out that count: as the engine counted, else what came; nothing where nothing was made."""
        counts = self._counts
        if self._first is None or (self._status >= 400 and not counts.answer):
            return 0, 0
        prompt = counts.prompt if counts.prompt is not None else self._prompt
        return prompt, counts.answer if counts.answer is not None else counts.events

    def _replica(self) -> str:
        return self._seat.route.id if self._seat is not None else ""

    def _end(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        self._core.exchanges.discard(self)
        now = self._last if outcome == "ok" else time.monotonic()
        if self._alone is not None:
            self._alone.cancel()
        if self._again is not None:
            self._again.cancel()
        if self._waiter is not None:
            self._core.table.leave(self._target, self._waiter)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()
            self._connection = None
        if self._turn is not None and self._turn.ended is None:
            self._turn.add(b"", True)
        counts, seat = self._counts, self._seat
        if self._hold is not None:
            self._core.table.subjects.settle(self._hold, *self._used())
        guessed = counts.answer is None and counts.events > 0
        route = seat.route if seat is not None else _NOWHERE
        in_slot = now - self._seated if self._seated is not None else 0.0
        self._core.spool.add(
            wire.UsageLine(  # by place: by name it would cost a microsecond more
                self._id,
                time.time(),
                self._uid,
                self._model,
                self._target.route.model,
                route.id,
                route.launch,
                self._api.path,
                self._status,
                outcome,
                counts.prompt,
                counts.cached,
                counts.events if guessed else counts.answer,
                guessed,
                (self._seated or now) - self._began,
                self._first - self._began if self._first is not None else None,
                now - self._began,
                self._actor,
                self._turn_id,
                self._token - self._began if self._token is not None else None,
                route.version,
                route.node,
                in_slot * route.cores / max(1, route.slots),
                1,
                self._holder.key.id if self._holder is not None else "",
            )
        )
        if seat is not None:
            self._give_back(seat, now)

    def _give_back(self, seat: Seat, now: float) -> None:
        seconds = now - self._seated if self._seated is not None else 0.0
        charged = 0.0
        if self._queued is not None:  # once: a second seat is charged anew
            charged, self._queued.charged = self._queued.charged, 0.0
        self._core.table.give_back(self._target, seat, self._caller, seconds, charged)
