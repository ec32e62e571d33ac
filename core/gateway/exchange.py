"""One request from its beginning to its end: what comes back from its engine, time-outs, and the line of usage."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from typing import Protocol

from core.gateway import wire
from core.gateway.admission import admit
from core.gateway.apis import Api
from core.gateway.asked import Asked
from core.gateway.bodies import as_stream, unambiguous, with_progress, with_usage
from core.gateway.core import Core
from core.gateway.counting import Counts, counts_of
from core.gateway.ending import ended, tail
from core.gateway.errors import Refusal, as_shape, too_many
from core.gateway.gathered import Gathered
from core.gateway.keys import Holder
from core.gateway.limits import BYTES_A_TOKEN, Hold, Meter
from core.gateway.opening import opened
from core.gateway.pictures import size
from core.gateway.queue import Caller
from core.gateway.rest import Rest
from core.gateway.seating import Seating
from core.gateway.sessions import session
from core.gateway.several import SeveralCounts, counts_of_several
from core.gateway.turns import ALONE_S, Turn

ERROR_BYTES = 64 << 10
"""Of an engine's error that is read."""
_NOWHERE = wire.ReplicaRoute(id="", launch="", endpoint="")
"""Of a request that no replica took."""


class Client(Protocol):
    """Where an answer goes."""

    def begin(self, status: int, content_type: bytes, length: int | None, queued: bytes = b"") -> None: ...
    def whole(self, status: int, content_type: bytes, body: bytes, queued: bytes = b"") -> None: ...
    def part(self, data: bytes, last: bool) -> None: ...
    def refuse(self, refusal: Refusal, queued: bytes = b"") -> None: ...
    def break_off(self) -> None: ...
    def barred(self, deployment: str) -> Refusal | None: ...


def _not_served(route: wire.Route, api: Api) -> Refusal:
    there = ", ".join(route.serves) or "nothing"
    return Refusal(404, f"deployment {route.name} does not serve {api.path}; it serves {there}", "route_not_served")


class Exchange(Seating):
    """One request. The client may go while a turn goes on."""

    __slots__ = (
        "_actor", "_alone", "_client", "_counts", "_error", "_first", "_gathered", "_hold", "_holder", "_id", "_mark",
        "_model",
        "_prompt", "_reads", "_sse", "_status", "_tail", "_token", "_turn", "_uid", "_unframed", "_unopened",
    )  # fmt: skip

    def __init__(
        self, core: Core, client: Client, api: Api, body: bytes, asked: Asked, uid: int, actor: str, turn: str,
        holder: Holder | None = None, id: str = "", deadline: float = math.inf,
    ) -> None:  # fmt: skip
        """`deadline`: seconds after which its client wants no answer any more that has not begun."""
        caller: Caller = uid
        if holder is not None:
            caller, uid, actor = holder.key.id, holder.key.uid, holder.key.owner
        # By super() each request would cost 0.1 µs more.
        Seating.__init__(self, core, api, asked.model, body, caller, turn, deadline)
        self._client: Client | None = client
        self._id = id or core.new_id()
        self._model = asked.model  # not `asked`: its raw parts would keep the body
        self._uid = uid
        self._actor = actor
        self._turn: Turn | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._first: float | None = None
        self._token: float | None = None
        self._status = 0
        self._sse = self._unframed = False
        self._tail = b""
        """The end of a stream whose end nothing but its connection's tells (`_unframed`)."""
        route = self._target.route
        if api.path not in route.serves:
            raise _not_served(route, api)
        if core.alone:
            raise Refusal(
                503, "no daemon has said for a long time who may do what: start it (any corral command, or"
                " systemctl start corral)", "daemon_away",
            )  # fmt: skip
        if core.spool.left < 1 and not core.table.limits.serve_uncounted:
            raise Refusal(503, "usage cannot be recorded: the spool is full; start the daemon", "spool_full")
        if route.asks_for:
            self._body = unambiguous(body, route.asks_for)
        self._mark = 0
        """In its body, where the engine tells how much it made of a stream that is cut."""
        self._unopened = self._reads = False
        self._gathered: Gathered | None = None
        """What is to go to the client in one piece."""
        if api.options and (
            asked.n is not None or asked.n_cmpl is not None or asked.best_of is not None
            or (api.prompts and bytes(memoryview(asked.prompt)[:1]) == b"[")
        ):  # fmt: skip
            self._counts = self._several(api, asked)
        elif asked.stream and api.answers:
            self._counts = self._streaming(api, asked)
        else:
            self._counts = counts_of(api)
        self._error: bytearray | None = None
        """What came of an engine's error, which is put into the client's shape at its end."""
        self._holder = holder
        self._prompt = (size(body) if route.pictures else len(body)) // BYTES_A_TOKEN + 1
        self._hold: Hold | None = None
        if len(self._target.seats) > 1 and not route.embedding:
            self._session = session(caller, body)

    def _several(self, api: Api, asked: Asked) -> Counts:
        """What reads the answers of a request that may want several; each takes a slot."""
        prompts, each = asked.several(api)
        self._slots = prompts * each
        streams = bool(asked.stream)
        if self._slots > 1 and not streams and self._target.route.prompt_progress and not self._turn_id:
            self._gathered = Gathered(chat=not api.prompts)
            self._body = as_stream(self._body)
        if streams or self._gathered is not None:
            return self._streaming(api, asked)
        ctx = self._target.route.ctx_per_slot
        return counts_of_several(api, asked, ctx) if self._slots > 1 else counts_of(api)

    def _streaming(self, api: Api, asked: Asked) -> Counts:
        """What reads a stream, which the engine is asked to tell its counts in."""
        route = self._target.route
        wants = self._gathered is None and asked.stream_options is not None and bool(asked.stream_options.include_usage)
        inject = not wants and route.stream_usage and api.options
        progress = route.prompt_progress and api.options
        add_progress = progress and bytes(asked.return_progress) != b"true"
        if inject:
            self._body = with_usage(self._body, asked)
        if progress:
            self._mark = self._core.new_mark()
            self._body = with_progress(self._body, self._mark)
        self._reads = progress
        self._unopened = api.shape != "openai"
        if self._slots > 1:
            return counts_of_several(api, asked, route.ctx_per_slot, stream=True, cut=inject, cut_progress=add_progress)
        return counts_of(api, stream=True, cut=inject, cut_progress=add_progress)

    def start(self, asked: Asked, meters: tuple[Meter, ...] = ()) -> None:
        """Reserve what it may use by all `meters`, and find a seat, or queue. Raises `Refusal`."""
        if self._slots > 1 and 0 < (widest := self._target.widest) < self._slots:
            raise too_many(self._slots, widest, f"a replica of {self._target.route.name} makes")
        if self._turn_id:
            self._loose = True
            self._turn = self._core.turns.begin(self._turn_id, self.stop)
            if self._turn is None:
                raise Refusal(409, f"turn {self._turn_id[:64]} is known already", "turn_exists")
        if meters:
            subjects, ctx = self._core.table.subjects, self._target.route.ctx_per_slot
            self._hold, self._body = admit(
                subjects, meters, self._api, self._body, asked, ctx, self._used, self._prompt, self._slots
            )
        self._core.add(self)
        self._find()

    # -------------------------------------------------------------------------------- what the engine says

    def answer(self, status: int, content_type: bytes, body: bytes) -> None:
        client, seat, counts = self._client, self._seat, self._counts
        if client is None or seat is None or self._loose or status >= 400 or self._unopened or self._reads:
            self.answer_head(status, content_type, len(body))
            self.answer_part(body, True)
            return
        self._status, self._body = status, b""
        self._first = self._last = now = time.monotonic()
        body = counts.part(body, True)
        if counts.events:
            self._token = now
        seat.ttft_ms = (now - (self._seated or now)) * 1000
        seat.tokens += counts.answer or counts.events
        client.whole(status, content_type, body, b"" if self._queued is None else self._told())
        self._connection = None
        self._end("ok")

    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None:
        self._status = status
        self._body = b""
        self._sse = content_type.startswith(b"text/event-stream")
        self._first = self._last = time.monotonic()
        if not self._reads:
            self._begun()
        if self._turn is not None:
            self._turn.content_type = content_type
        connection = self._connection
        self._unframed = (
            self._sse and status < 400 and self._gathered is None and connection is not None and not connection.framed
        )  # what is gathered looks for its end itself
        if not self._sse or status >= 400:
            self._gathered = None
        if status >= 400:
            self._error, self._sse = bytearray(), False
        elif self._client is not None and self._gathered is None:
            self._client.begin(status, content_type, None if self._sse else length, self._told())

    def _begun(self) -> None:
        """The answer has begun: with its head, or where the engine tells of the prompt first, with its first token."""
        if self._seat is not None and self._seated is not None:
            self._seat.ttft_ms = (self._last - self._seated) * 1000

    def answer_part(self, data: bytes, last: bool) -> None:
        self._last = time.monotonic()
        if self._unframed:
            self._tail = tail(self._tail, data)
            if last and not ended(self._tail):
                self._unframed = False
                self.answer_part(data, False)
                self._broke("ended the stream before its last event")
                return
        counts, seat, client = self._counts, self._seat, self._client
        before = counts.events
        data = counts.part(data, last)
        if self._unopened and data and self._sse:
            data = self._opened(data)
        if self._error is not None:
            data = self._other_error(data, last)
        elif self._gathered is not None:
            data = self._gather(data, last)
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
        made = as_shape(self._api.shape, self._status, bytes(self._error))
        if self._turn is not None:
            self._turn.content_type = b"application/json"
        if self._client is not None:
            self._client.begin(self._status, b"application/json", len(made))
        return made

    def _gather(self, data: bytes, last: bool) -> bytes:
        """All answers in one piece, at the end of the last of them."""
        assert self._gathered is not None
        self._gathered.part(data)
        if not last:
            return b""
        self._status, made = self._gathered.whole(self._counts)
        if self._status >= 400:
            made = as_shape(self._api.shape, self._status, made)
        if self._client is not None:
            self._client.begin(self._status, b"application/json", len(made), self._told())
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
        how = "was stopped" if self._seat is not None and self._seat.route.draining else "died"
        self._broke(f"{how} while it answered")

    def _broke(self, how: str) -> None:
        """Its answer has begun, and will not be whole."""
        self._connection = None
        if self._seat is not None:
            self._seat.errors += 1
        self._cut(Refusal(502, f"replica {self._replica()} {how}", "replica_died"), "replica-died")

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
        if client is not None and not self._done and (refusal := client.barred(name)) is not None:
            self._cut(refusal, "refused" if self._seated is None else "revoked")

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

    def _cut(self, refusal: Refusal, outcome: str) -> None:
        """End an answer early: an error event in a stream, a closed connection else."""
        if self._error is not None or self._gathered is not None:  # nothing of it was sent
            self._error, self._gathered, self._status = None, None, 0
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
            if now < self._deadline or (self._status and self._gathered is None):
                return
            seconds = self._deadline - self._began
        if self._paused and self._client is not None:
            self._client.break_off()
            self.client_gone()
            return
        what = "nothing came" if begun and self._gathered is None else "the first byte did not come"
        self._cut(Refusal(504, f"{what} from replica {self._replica()} for {seconds:g} s", "timeout"), "timeout")

    def _used(self) -> tuple[int, int]:
        """Tokens in and out that count: as the engine counted, else what came; nothing where nothing was made."""
        counts = self._counts
        if not self._began_to_answer():
            return 0, 0
        prompt = counts.prompt if counts.prompt is not None else self._prompt
        return prompt, counts.answer if counts.answer is not None else max(counts.events, counts.guess)

    def _began_to_answer(self) -> bool:
        counts = self._counts
        return self._first is not None and (self._status < 400 or bool(counts.answer) or counts.events > 0)

    def _let_go(self) -> None:
        """End what would go on without it."""
        if self._alone is not None:
            self._alone.cancel()
        if self._turn is not None and self._turn.ended is None:
            self._turn.add(b"", True)
        self._leave()

    def line(self, outcome: str, now: float) -> wire.UsageLine:
        """Its line of usage, were it to end at `now` (monotonic)."""
        counts, seat = self._counts, self._seat
        prompt, answer = counts.prompt, counts.answer
        guessed = False
        if (prompt is None or answer is None) and self._began_to_answer():
            # As limits are charged.
            charged, made = self._used()
            guessed = prompt is None or made > 0
            prompt = charged
            answer = made if answer is None and made > 0 else answer
        route = seat.route if seat is not None else _NOWHERE
        in_slot = now - self._seated if self._seated is not None else 0.0
        return wire.UsageLine(  # by place: by name it would cost a microsecond more
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
            prompt,
            counts.cached,
            answer,
            guessed or counts.estimated,
            (self._seated or now) - self._began,
            self._first - self._began if self._first is not None else None,
            now - self._began,
            self._actor,
            self._turn_id,
            self._token - self._began if self._token is not None else None,
            route.version,
            route.node,
            in_slot * route.cores * self._slots / max(1, route.slots),
            1,
            self._holder.key.id if self._holder is not None else "",
        )

    def _end(self, outcome: str) -> None:
        if self._done:
            return
        self._done = True
        now = self._last if outcome == "ok" else time.monotonic()
        seat, connection, hold = self._seat, self._connection, self._hold
        late = connection is not None and self._tells_late()
        if self._slots > 1 and not late and self._counts.answer is None:
            self._counts.lost()
        if hold is not None:
            self._core.table.subjects.settle(hold, *self._used())
            self._hold = None  # it knows us: both would wait for the collector of cycles, 4 us a request
        if connection is None or seat is None or not late:
            self._core.exchanges.discard(self)
            self._core.spool.add(self.line(outcome, now))
        else:
            known = functools.partial(self._known, outcome, now, hold)
            self._connection = None
            counts = self._counts
            each = counts.each if isinstance(counts, SeveralCounts) else 1
            rest = Rest(self._core, seat.pool, seat.route, counts, self._mark, known, self._slots, each)
            rest.begin(connection)
        if self._loose or self._connection is not None:
            self._let_go()
        if seat is not None:
            self._give_back(seat, now)

    def _tells_late(self) -> bool:
        """Does its engine say what it makes of it from now on?"""
        return self._sse and self._target.route.prompt_progress and self._counts.answer is None

    def _known(self, outcome: str, now: float, hold: Hold | None) -> None:
        """What it has come to is known, a moment after its client has gone."""
        self._core.exchanges.discard(self)
        if self._slots > 1 and self._counts.answer is None:
            self._counts.lost()
        if hold is not None:
            self._core.table.subjects.correct(hold, *self._used())
        self._core.spool.add(self.line(outcome, now))
