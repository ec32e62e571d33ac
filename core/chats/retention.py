"""How long chats are kept: those whose last turn is older than [chats] keep_days are deleted for good."""

from __future__ import annotations

import asyncio
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import Any

from core.access import Gate
from core.chats import tables
from core.events import Bus
from core.nouns import CORRAL
from core.store import Store
from core.store.hourly import hourly

DAY_S = 86400.0


class Retention:
    """Removes what is over: at the daemon's start, then each hour. `days` is asked each time; 0 keeps for ever."""

    def __init__(
        self, store: Store, gate: Gate, bus: Bus, *, days: Callable[[], int], clock: Callable[[], float] = time.time
    ) -> None:
        self._store, self._gate, self._bus = store, gate, bus
        self._days, self._clock = days, clock
        self._looked = False
        """The copies of the database were gone through: a daemon that was killed may have left something there."""

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        await hourly(self.sweep, "chats that are over", pause)

    async def sweep(self) -> int:
        """Remove what is over now; how many chats. One record says the number and no more. A chat that is being
        answered stays. Raises `StoreError`."""
        days = self._days()
        if not days:
            return 0
        before = self._clock() - days * DAY_S
        over = await self._store.read(lambda db: tables.over(db, before))
        gone: dict[str, str] = {}

        def work(db: sqlite3.Connection) -> tuple[dict[str, str], Any, Any]:
            now = {id: tables.owner(db, id) for id in tables.over(db, before)}
            turns = sum(tables.count_turns(db, id) for id in now)
            for id in now:
                tables.delete_chat(db, id)
            return now, {"chats": len(now), "turns": turns}, {"keep_days": days}

        if over:
            gone = await self._gate.act(CORRAL, "chats.expire", "chats:all", secrets.token_hex(8), work)
        if gone or not self._looked:
            there = set(await self._store.read(tables.ids))
            await self._store.erase(lambda db: _erase(db, before, there))
            self._looked = True
        for id, owner in gone.items():
            self._bus.publish("chat.gone", f"chat:{id}", to=owner)
        return len(gone)


def _erase(db: sqlite3.Connection, before: float, there: set[str]) -> None:
    """From a copy: what is over and no longer in the database itself."""
    for id in tables.over(db, before, running=True):
        if id not in there:
            tables.delete_chat(db, id)
