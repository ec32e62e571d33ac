"""Usage as the gateway reports it: batches committed once, repeats dropped by (gateway launch, n)."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec


class UsageRow(msgspec.Struct, frozen=True):
    """One request: when, of which deployment, and the rest as JSON."""

    time: float
    deployment: str
    data: str


def commit_batch(db: sqlite3.Connection, gateway: str, n: int, rows: Sequence[UsageRow]) -> bool:
    """Write one batch inside a transaction. False if it was committed before."""
    mark = db.execute("SELECT n FROM usage_mark WHERE gateway = ?", (gateway,)).fetchone()
    if mark is not None and n <= mark[0]:
        return False
    db.executemany(
        "INSERT INTO usage (gateway, batch, line, time, deployment, data) VALUES (?, ?, ?, ?, ?, ?)",
        [(gateway, n, i, row.time, row.deployment, row.data) for i, row in enumerate(rows)],
    )
    db.execute(
        "INSERT INTO usage_mark (gateway, n) VALUES (?, ?) ON CONFLICT (gateway) DO UPDATE SET n = excluded.n",
        (gateway, n),
    )
    return True
