"""What all requests of a gateway share: routes, spool, turns, connections, and one timer for the time-outs of all."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import Coroutine
from typing import Any, Protocol

from core.gateway import wire
from core.gateway.crowd import Crowd
from core.gateway.denials import Denials
from core.gateway.folded import Folded
from core.gateway.intake import Intake
from core.gateway.keep import Keep
from core.gateway.places import Places
from core.gateway.routes import Table
from core.gateway.turns import Turns
from core.gateway.upstream import Pool
from core.gateway.usage import GATEWAY_DIED, Spool

MARKS = (1 << 31) - 1
"""What an engine's field of 32 bits holds."""
WATCH_S = 0.2
"""How often the time-outs of all requests are looked at: one timer for all is cheaper than one each."""


class Caller(Protocol):
    """A client's connection."""

    def leave(self) -> None: ...
    def unused(self) -> None: ...
    def silent(self) -> None: ...


class Running(Protocol):
    """A request that has time-outs and can be stopped."""

    def look(self, now: float, limits: wire.GatewayLimits) -> None: ...
    def stop(self, why: str = "") -> None: ...
    def obey(self) -> None: ...
    def line(self, outcome: str, now: float) -> wire.UsageLine: ...


class Core:
    """What all requests share."""

    def __init__(self, table: Table, spool: Spool, *, owner: int) -> None:
        self.table = table
        self.spool = spool
        self.owner = owner
        self.keep = Keep(spool.folder.parent, table.subjects)
        self.turns = Turns()
        self.denials = Denials()
        self.tasks: set[asyncio.Task[None]] = set()
        self.exchanges: set[Running] = set()
        self.clients: set[Caller] = set()
        self.fresh: dict[Caller, float] = {}
        """Those that are to ask something soon, the oldest first, and when they came (monotonic)."""
        self.places = Places()
        """Connections by the address, or user, that they come from."""
        self.lingering = 0
        """Connections that are told that there is no room for them."""
        self.holders = Crowd()
        """Connections by the key that was used last on them."""
        self.intake = Intake()
        """Bodies that have begun and are not whole."""
        self.retired = False
        self.alone = False
        """No daemon has been there for longer than requests are served without."""
        self.elsewhere: Pool | None = None
        """Where the turns of the gateway before this one can be followed, while it lives."""
        self.requests = 0
        self._swept = time.monotonic()
        self._watch: asyncio.TimerHandle | None = None
        self._prefix = secrets.token_hex(4)
        self._ids = itertools.count()
        self._marks = itertools.count(secrets.randbits(30))
        self.folded = Folded(self.new_id)
        """Requests that were refused before they reached a deployment."""

    def new_id(self) -> str:
        """16 hex digits for a line of usage; unlike those of any other gateway. (Random bits cost a system call.)"""
        return f"{self._prefix}{next(self._ids) & 0xFFFFFFFF:08x}"

    def new_mark(self) -> int:
        """A number from 1 on that no other stream of now has, most likely not one of the gateway before this one."""
        return next(self._marks) % MARKS + 1

    def flush(self) -> None:
        """Write the usage since the last call to the spool, and how far what runs has come: were this gateway killed,
        that is what is known of it. Refusals are few lines and wait until there is room."""
        if self.spool.left > 0:
            for line in self.folded.lines():
                self.spool.add(line)
        self.spool.flush()
        now = time.monotonic()
        self.spool.running([each.line(GATEWAY_DIED, now) for each in self.exchanges])

    def add(self, exchange: Running) -> None:
        """Take a request that begins; its time-outs are watched until `exchanges` has lost it."""
        self.requests += 1
        self.exchanges.add(exchange)
        if self._watch is None:
            self._watch = asyncio.get_running_loop().call_later(WATCH_S, self._look)

    def _look(self) -> None:
        now, limits = time.monotonic(), self.table.limits
        for exchange in tuple(self.exchanges):
            exchange.look(now, limits)
        if self.table.lapsed(time.time()):
            self.obey()
        again = asyncio.get_running_loop().call_later(WATCH_S, self._look) if self.exchanges else None
        self._watch = again

    def tell_denials(self, *, all: bool = False) -> None:
        """Spool who was turned away. While the spool is full they are counted on."""
        if self.spool.left > 0:
            self.spool.deny(self.denials.due(time.time(), all=all))

    def sweep(self) -> None:
        """Have connections closed on which nothing was asked between two sweeps: whoever may connect could hold them
        for ever, and with them descriptors. Those that have come and asked nothing have less time."""
        now = time.monotonic()
        while self.fresh:
            client, came = next(iter(self.fresh.items()))
            if now - came < self.table.limits.request_timeout_s:
                break
            del self.fresh[client]
            client.silent()
        if now - self._swept >= self.table.limits.idle_timeout_s:
            self._swept = now
            for client in tuple(self.clients):
                client.unused()

    def obey(self) -> None:
        """Rights have changed: end what is not allowed any more."""
        for exchange in tuple(self.exchanges):
            exchange.obey()

    def retire(self) -> None:
        """Take nothing new: idle connections are closed, busy ones after their answer."""
        self.retired = True
        for client in tuple(self.clients):
            client.leave()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a connect; it is owned here and cancelled with its request."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task
