"""What is over is deleted for good, by the rules of now: at the daemon's start, then each hour, with a record."""

from __future__ import annotations

import asyncio
import collections
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from core.access import Gate
from core.access.people import actor_named
from core.chats import tables
from core.chats.holds import any_hold
from core.chats.rules import DAY_S, Rules
from core.chats.tables import Owner
from core.errors import CorralError, NotFound
from core.events import Bus
from core.nouns import CORRAL
from core.store import Store
from core.store.hourly import hourly

log = logging.getLogger(__name__)

Groups = Callable[[Owner], Awaitable[frozenset[int] | None]]
"""The groups of a user; None: they cannot be told now."""


async def groups_of(owner: Owner) -> frozenset[int] | None:
    """As the host has them; none for somebody who has left it."""
    try:
        found = await actor_named(owner.name)
    except NotFound:
        return frozenset()
    except CorralError as error:
        log.warning("chats of %s stay until his groups are known: %s", owner.name, error)
        return None
    return frozenset(found.groups) if found.uid == owner.uid else frozenset()


class Retention:
    """Removes what is over. `end_private` lets private chats go that nobody uses."""

    def __init__(
        self, store: Store, gate: Gate, bus: Bus, rules: Rules, *, end_private: Callable[[], Awaitable[object]],
        groups: Groups = groups_of, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._bus, self._rules = store, gate, bus, rules
        self._end_private, self._groups, self._clock = end_private, groups, clock
        self._over_by: dict[str, int] = {}
        self._looked = False
        """The copies of the database were gone through: a daemon that was killed may have left something there."""

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        await hourly(self.sweep, "chats that are over", pause)

    async def sweep(self) -> int:
        """Remove what is over now; how many chats. One record says the number, and by which days. A chat that is being
        answered or under legal hold stays. Raises `StoreError`."""
        await self._end_private()
        over = await self._over()
        gone: dict[str, Owner] = {}

        def work(db: sqlite3.Connection) -> tuple[dict[str, Owner], Any, Any]:
            now = {id: (owner, at) for id, owner, _, at, busy in tables.ages(db) if not busy}
            ended = {
                id: now[id][0] for id, at in over.items() if id in now and now[id][1] == at and not tables.held(db, id)
            }
            turns = sum(tables.count_turns(db, id) for id in ended)
            days = collections.Counter(str(self._over_by[id]) for id in ended)
            for id in ended:
                tables.delete_chat(db, id)
            return ended, {"chats": len(ended), "turns": turns}, {"by_days": dict(sorted(days.items()))}

        if over:
            gone = await self._gate.act(CORRAL, "chats.expire", "chats:all", secrets.token_hex(8), work)
        if gone or not self._looked:
            there = set(await self._store.read(tables.ids))
            await self._store.erase(lambda db: self._erase(db, there, gone))
            self._looked = True
        await self._store.tidy()
        await self._end_set_aside()
        for id, owner in gone.items():
            self._bus.publish("chat.gone", f"chat:{id}", to=owner.name)
        return len(gone)

    async def _over(self) -> dict[str, float]:
        """Chats that are over by the rules, each with the time of its last turn: one that is used meanwhile stays."""
        found = await self._store.read(tables.ages)
        groups: dict[Owner, frozenset[int] | None] = {}
        self._over_by = {}
        over = {}
        now = self._clock()
        for id, owner, deployment, at, busy in found:
            if owner not in groups:
                groups[owner] = await self._groups(owner) if self._rules.by_group else frozenset()
            mine = groups[owner]
            if busy or mine is None:
                continue
            days = self._rules.days(owner.uid, owner.name, mine, deployment)
            if days is not None and at + days * DAY_S <= now and not await self._held(id):
                over[id], self._over_by[id] = at, days
        return over

    async def _held(self, chat: str) -> bool:
        return await self._store.read(lambda db: tables.held(db, chat))

    async def _end_set_aside(self) -> None:
        """Remove what is left of a corrupt database when everything in it is over by the longest rule: SQLite reaches
        nothing in there. While anything is under legal hold it stays."""
        longest = self._rules.longest()
        if longest is None or await self._store.read(any_hold):
            return
        now = self._clock()
        old = [path for path in self._store.set_aside() if (at := _made(path)) and at + longest * DAY_S <= now]
        if not old:
            return
        names = sorted(path.name for path in old)
        effect = await self._gate.intent(
            CORRAL, "chats.expire", "database:set-aside", secrets.token_hex(8), after={"files": names}
        )
        await asyncio.to_thread(self._store.remove, old)
        await self._gate.outcome(effect, "done")

    def _erase(self, db: sqlite3.Connection, there: set[str], gone: Collection[str]) -> None:
        """From a copy of before a migration: what went now, and what a daemon that was killed had removed already."""
        now = self._clock()
        for id, owner, deployment, at, _ in tables.ages(db):
            days = self._rules.days(owner.uid, owner.name, (), deployment)
            if id in gone or (id not in there and days is not None and at + days * DAY_S <= now):
                tables.delete_chat(db, id)


def _made(path: Path) -> float | None:
    """When it was set aside, as its name says."""
    text = path.name.removeprefix("corral.db.corrupt-")[:15]
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
