"""How a request gets a replica: a seat or a place in the queue, a connection, and another replica where one fails."""

from __future__ import annotations

import asyncio
import functools
import time
from abc import abstractmethod

from core.gateway.apis import Api
from core.gateway.core import Core
from core.gateway.errors import Refusal
from core.gateway.queue import Caller, Waiter
from core.gateway.routes import Seat, Target
from core.gateway.upstream import EngineConnection

AGAIN_S = 3.0
"""For so long a request that no replica took is tried again: within it the daemon withdraws one that died."""
PAUSE_S = 0.25
LOSSES = 2
"""So many replicas may a request be sent to that end before they answer: it may be what ends them."""


@functools.lru_cache(maxsize=256)
def request_head(prefix: str, path: str, host: str, secret: str) -> bytes:
    """The head of a request to an engine, up to the number of its body's bytes."""
    key = f"Authorization: Bearer {secret}\r\n" if secret else ""
    head = f"POST {prefix}{path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n{key}Content-Length: "
    return head.encode("latin-1")


class Seating:
    """A request until an engine has it. What comes back from there is for whoever derives from it (`Exchange`): one
    object, since two would be a call more for each part of an answer. (Not an ABC: decision 0012.)"""

    __slots__ = (
        "_again", "_api", "_began", "_body", "_caller", "_connecting", "_connection", "_core", "_deadline", "_done",
        "_failed", "_fresh", "_last", "_loose", "_lost", "_paused", "_queued", "_seat", "_seated", "_sent", "_session",
        "_slots", "_target", "_tried", "_turn_id", "_waiter",
    )  # fmt: skip

    def __init__(
        self, core: Core, api: Api, model: str, body: bytes, caller: Caller, turn: str, deadline: float
    ) -> None:
        """`caller`: in whose line it waits. `deadline`: seconds after which it is not worth an answer that has not
        begun. Raises `Refusal` for a deployment that is not there."""
        self._core = core
        self._api = api
        self._body = body
        self._caller = caller
        self._turn_id = turn
        self._session = 0
        """Which conversation it belongs to, where that matters."""
        self._slots = 1
        """So many of a replica's it takes: one for each answer."""
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
        self._fresh = self._sent = self._paused = False
        self._loose = False
        """Something of it may go on without it: a place in a queue, a connect, a timer, a turn."""
        self._began = self._last = time.monotonic()
        self._deadline = self._began + deadline
        self._seated: float | None = None
        self._done = False
        self._target: Target = core.table.target(model)

    # -------------------------------------------------------------------------------- what comes of it

    @abstractmethod
    def answer(self, status: int, content_type: bytes, body: bytes) -> None: ...
    @abstractmethod
    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None: ...
    @abstractmethod
    def answer_part(self, data: bytes, last: bool) -> None: ...
    @abstractmethod
    def answer_lost(self) -> None: ...
    @abstractmethod
    def _refused(self, refusal: Refusal, outcome: str = "refused") -> None:
        """No replica takes it."""

    # -------------------------------------------------------------------------------- the way there

    def _find(self) -> None:
        table, target = self._core.table, self._target
        try:
            wide = target.queue.wide
            seat = table.take(target, self._session, self._slots) if not wide else None
            if seat is None:
                self._loose = True
                waiter = Waiter(self._caller, self._sit, self._refused, self._turn_id, self._session, self._slots)
                left = self._deadline - time.monotonic()
                table.wait(target, waiter, left, again=self._tried is not None)
                self._waiter = self._queued = waiter
                if wide:  # there may be room for it all the same
                    table.feed(target)
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
        self._loose = True
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
            self._loose = True
            self._again = asyncio.get_running_loop().call_later(PAUSE_S, self._find)
        else:
            self._refused(Refusal(502, f"replica {seat.route.id} does not answer", "replica_died"), "replica-died")

    def _leave(self) -> None:
        """Leave the queue, the engine, and whatever else it waits for."""
        if self._again is not None:
            self._again.cancel()
        if self._waiter is not None:
            self._core.table.give_up(self._target, self._waiter)
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    def _told(self) -> bytes:
        """Headers about its time in the queue, if it had one."""
        if self._queued is None:
            return b""
        return self._queued.headers((self._seated or time.monotonic()) - self._began)

    def _replica(self) -> str:
        return self._seat.route.id if self._seat is not None else ""

    def _give_back(self, seat: Seat, now: float) -> None:
        seconds = now - self._seated if self._seated is not None else 0.0
        charged = 0.0
        if self._queued is not None:  # once: a second seat is charged anew
            charged, self._queued.charged = self._queued.charged, 0.0
        self._core.table.give_back(self._target, seat, self._caller, seconds, charged, self._slots)
