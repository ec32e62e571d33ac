"""A store with usage in it, and lines as the gateway tells them."""

import sqlite3
from collections.abc import Sequence

import msgspec

from core.access import Gate, Rights
from core.audit import Audit
from core.gateway.wire import UsageLine
from core.paths import Paths
from core.store import Store
from core.telemetry.rollups import DIMENSIONS, SUMS, roll
from core.telemetry.usage import commit_batch, row_of

NOON = 1_700_049_600.0
"""2023-11-15T12:00:00Z."""
PACKAGES = ("core.store", "core.audit", "core.telemetry")
PEOPLE = {1: ("ann", "staff"), 2: ("ben", "guests")}


def line(time: float, uid: int = 1, **fields: object) -> UsageLine:
    """A request of 9 tokens in, 4 of them cached, and 3 out."""
    made = UsageLine(
        id="0" * 16, time=time, uid=uid, deployment="chat", model="m", replica="chat/0", launch="l",
        path="/v1/completions", status=200, outcome="ok", prompt_tokens=9, cached_tokens=4, answer_tokens=3,
        queue_s=0.25, first_byte_s=0.5, total_s=2.0, first_token_s=0.5, version=1, node="local", core_s=1.5,
    )  # fmt: skip
    return msgspec.structs.replace(made, **fields)


class Usage:
    """The store, the lines that were committed, and a clock that the test moves."""

    def __init__(self, paths: Paths, store: Store) -> None:
        self.paths, self.store = paths, store
        self.audit = Audit(store, paths)
        self.gate = Gate(store, self.audit, Rights(mode="user", owner_uid=1000))
        self.now = NOON
        self.steady = 50.0
        self._n = 0

    async def commit(self, *lines: UsageLine) -> None:
        self._n += 1
        n, rows = self._n, [row_of(each, PEOPLE) for each in lines]
        await self.store.transact(lambda db: commit_batch(db, "gw", n, rows))

    async def roll(self, limit: int = 10_000) -> int:
        return await self.store.transact(lambda db: roll(db, limit))

    async def sql(self, sql: str, *values: object) -> list[tuple]:
        return await self.store.read(lambda db: db.execute(sql, values).fetchall())

    def passes(self, seconds: float) -> None:
        """Time, for all clocks."""
        self.now += seconds
        self.steady += seconds


def cells(db: sqlite3.Connection, span: int) -> dict[tuple, Sequence[int]]:
    """The sums of one span, all times together."""
    names = ", ".join(f"sum({name})" for name in SUMS)
    rows = db.execute(f"SELECT {', '.join(DIMENSIONS)}, {names} FROM usage_rollups WHERE span = ? GROUP BY "
                      f"{', '.join(DIMENSIONS)}", (span,))  # fmt: skip
    return {row[: len(DIMENSIONS)]: row[len(DIMENSIONS) :] for row in rows}
