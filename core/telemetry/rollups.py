"""Usage summed up by hour and by day, so that a month is asked in a moment.

Lines are taken in the order in which they were committed (`seq`), not by their times: a clock that is set, or a spool
that comes late, puts a line into another hour and never into two. A piece's sums and how far they go are one
transaction. What is not summed up yet is read from the lines themselves (core/telemetry/report.py).
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from core.errors import CorralError
from core.store import Store
from core.telemetry import times

log = logging.getLogger(__name__)

EVERY_S = 15.0
PIECE = 2000
"""Lines of one transaction: some 30 ms, in which nothing else is written."""
HOUR, DAY = 3600, 86400
SPANS = (HOUR, DAY)
DIMENSIONS = (
    "uid", "user", "groupname", "key", "deployment", "model", "version", "node", "replica", "outcome",
)  # fmt: skip
SUMS = ("requests", "prompt_tokens", "cached_tokens", "answer_tokens", "estimated", "queue_us", "core_us")
ROLLED, KEPT_FROM, LOOKED = "rolled", "kept_from", "looked_at"
"""Names in `usage_state`: the last `seq` that is summed up; from which second on every line is still there; when the
clock was last found to be right."""

_MEASURES = (
    "requests", "prompt_tokens", "cached_tokens", "answer_tokens", "estimated", "queue_s", "core_s", "first_token_s",
    "total_s",
)  # fmt: skip
LINE_COLUMNS = (*DIMENSIONS, "time", *_MEASURES)
"""What `Sums.line` takes, in this order."""
_AT = len(DIMENSIONS)


class Sums:
    """The sums of requests that are alike."""

    __slots__ = (*SUMS, "first_token", "total")

    def __init__(self) -> None:
        self.requests = self.prompt_tokens = self.cached_tokens = self.answer_tokens = self.estimated = 0
        self.queue_us = self.core_us = 0
        self.first_token: Counter[int] = Counter()
        self.total: Counter[int] = Counter()

    def line(self, row: Sequence[Any]) -> None:
        """Add one line: a row of `LINE_COLUMNS`. What nobody counted is marked as estimated."""
        outcome = row[_AT - 1]
        requests, prompt, cached, answer, estimated, queue_s, core_s, first_token_s, total_s = row[_AT + 1 :]
        self.requests += requests
        self.prompt_tokens += prompt or 0
        self.cached_tokens += cached or 0
        self.answer_tokens += answer or 0
        self.estimated += requests if estimated or (outcome == "ok" and prompt is None) else 0
        self.queue_us += round(queue_s * 1e6)
        self.core_us += round(core_s * 1e6)
        if first_token_s is not None:
            self.first_token[times.bucket_of(first_token_s)] += 1
        if outcome == "ok":  # how long an answer takes is not what a refusal took
            self.total[times.bucket_of(total_s)] += 1


def state(db: sqlite3.Connection, name: str) -> int | None:
    """A number of `usage_state`."""
    row = db.execute("SELECT value FROM usage_state WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def set_state(db: sqlite3.Connection, name: str, value: int) -> None:
    db.execute(
        "INSERT INTO usage_state (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        (name, value),
    )


_READ = f"SELECT seq, {', '.join(LINE_COLUMNS)} FROM usage_lines WHERE seq > ? ORDER BY seq LIMIT ?"  # noqa: S608
_KEY = ("span", "start", *DIMENSIONS)
_CELL = f"SELECT first_token, total FROM usage_rollups WHERE {' AND '.join(f'{name} = ?' for name in _KEY)}"  # noqa: S608
_COLUMNS = (*_KEY, *SUMS, "first_token", "total")
_ADD = (
    f"INSERT INTO usage_rollups ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608
    f" ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET first_token = excluded.first_token, total = excluded.total, "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in SUMS)
)


def roll(db: sqlite3.Connection, limit: int = PIECE) -> int:
    """Inside a transaction: add the next `limit` lines to the sums; how many there were."""
    rows = db.execute(_READ, (state(db, ROLLED) or 0, limit)).fetchall()
    if not rows:
        return 0
    cells: dict[tuple[Any, ...], Sums] = {}
    for _, *row in rows:
        second = row[_AT]
        for span in SPANS:
            key = (span, int(second // span) * span, *row[:_AT])
            if key not in cells:
                cells[key] = Sums()
            cells[key].line(row)
    for key, sums in cells.items():
        there = db.execute(_CELL, key).fetchone()
        if there is not None:
            sums.first_token.update(times.read(there[0]))
            sums.total.update(times.read(there[1]))
        numbers = (getattr(sums, name) for name in SUMS)
        db.execute(_ADD, (*key, *numbers, times.write(sums.first_token), times.write(sums.total)))
    set_state(db, ROLLED, rows[-1][0])
    return len(rows)


class Rollups:
    """Sums up what was committed since the last look."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until cancelled. A store that cannot be written is tried again: nothing is lost by it."""
        while True:
            try:
                await self.roll()
            except CorralError as error:
                log.error("usage could not be summed up: %s", error)
            await pause(EVERY_S)

    async def roll(self) -> int:
        """Sum up all there is, piece by piece; how many lines. Raises `StoreError`."""
        done = 0
        while taken := await self._store.transact(roll):
            done += taken
        return done
