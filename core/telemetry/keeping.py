"""How long usage is kept: lines for [usage] keep_days, sums for keep_rollup_days; whole days of UTC.

A line goes only after it was summed up. A clock that was set ahead would end everything at once: what is over by such
a jump stays until the clock has run on for an hour, in which whoever set it can set it right.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from core.access import Gate
from core.nouns import CORRAL
from core.store import Store
from core.store.hourly import hourly
from core.telemetry.rollups import DAY, KEPT_FROM, LOOKED, ROLLED, set_state, state

log = logging.getLogger(__name__)

PIECE = 20_000
"""Lines of one transaction and of one record."""
JUMP_S = 300.0
"""By how much the clock may differ from one that nobody sets, between two looks."""
AWAY_S = 2.0 * DAY
"""Who was away for longer looks whether the clock is right."""
WAIT_S = 3000.0
"""For how long a clock that has jumped must run on; less than an hour, so that the next look is late enough."""


class Days(NamedTuple):
    """Days that lines and sums are kept; 0 = for ever."""

    lines: int
    rollups: int

    @property
    def sums(self) -> int:
        """Sums stay at least as long as the lines that are in them."""
        return max(self.lines, self.rollups) if self.lines and self.rollups else 0


def steady() -> float:
    """Seconds on a clock that nobody sets and that runs on while the host sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class UsageRetention:
    """Removes what is over: at the daemon's start, then each hour. `days` is asked each time."""

    def __init__(
        self, store: Store, gate: Gate, *, days: Callable[[], Days], clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = steady,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._days = store, gate, days
        self._clock, self._steady = clock, steady
        self._last: tuple[float, float] | None = None
        """Of the look before: the clock, and the steady one."""
        self._since = 0.0
        """On the steady clock: when the clock jumped last."""
        self._doubt = False
        self._looked = False
        """The copies of the database were gone through."""

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled."""
        await hourly(self.sweep, "usage that is over", pause)

    async def sweep(self) -> int:
        """Remove what is over now; how many lines and sums. Each piece is one record. Raises `StoreError`."""
        now = self._clock()
        if not await self._believed(now):
            return 0
        await self._store.transact(lambda db: set_state(db, LOOKED, int(now)))
        days = self._days()
        lines = _midnight(now, days.lines)
        sums = _midnight(now, days.sums)
        gone = 0
        while await self._store.read(lambda db: _over(db, lines, sums)):
            removed = await self._gate.act(
                CORRAL, "usage.expire", "usage:all", secrets.token_hex(8), lambda db: _remove(db, lines, sums, days)
            )
            gone += removed
        if gone or not self._looked:
            await self._store.erase(lambda db: _erase(db, lines, sums))
            self._looked = True
        return gone

    async def _believed(self, now: float) -> bool:
        """Whether the clock has run on in step for long enough."""
        steady = self._steady()
        if self._last is None:
            looked = await self._store.read(lambda db: state(db, LOOKED))
            self._doubt = looked is not None and not looked - JUMP_S <= now <= looked + AWAY_S
            self._since = steady
        elif abs((now - self._last[0]) - (steady - self._last[1])) > JUMP_S:
            self._doubt, self._since = True, steady
        self._last = (now, steady)
        if self._doubt and steady - self._since >= WAIT_S:
            self._doubt = False
        if self._doubt:
            log.warning("the clock has jumped: no usage is removed until it has run on for a while")
        return not self._doubt


def _midnight(now: float, days: int) -> int:
    """Before which second everything is over; 0: nothing is."""
    return int((now - days * DAY) // DAY) * DAY if days else 0


_OVER = "SELECT seq FROM usage_lines WHERE time < ? AND seq <= ? LIMIT ?"


def _over(db: sqlite3.Connection, lines: int, sums: int) -> bool:
    if lines and db.execute(_OVER, (lines, state(db, ROLLED) or 0, 1)).fetchone():
        return True
    return bool(sums and db.execute("SELECT 1 FROM usage_rollups WHERE start < ? LIMIT 1", (sums,)).fetchone())


def _remove(db: sqlite3.Connection, lines: int, sums: int, days: Days) -> tuple[int, dict[str, int], dict[str, int]]:
    gone = 0
    if lines:
        rolled = state(db, ROLLED) or 0
        gone = db.execute(f"DELETE FROM usage_lines WHERE seq IN ({_OVER})", (lines, rolled, PIECE)).rowcount  # noqa: S608
        set_state(db, KEPT_FROM, max(lines, state(db, KEPT_FROM) or 0))
    cells = db.execute("DELETE FROM usage_rollups WHERE start < ?", (sums,)).rowcount if sums else 0
    return gone + cells, {"lines": gone, "rollups": cells}, {"keep_days": days.lines, "keep_rollup_days": days.sums}


def _erase(db: sqlite3.Connection, lines: int, sums: int) -> None:
    """From a copy of before a migration, which may not have all tables yet."""
    there = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    for table in {"usage", "usage_lines"} & there:
        db.execute(f"DELETE FROM {table} WHERE time < ?", (lines,))  # noqa: S608
    if "usage_rollups" in there:
        db.execute("DELETE FROM usage_rollups WHERE start < ?", (sums,))
