"""Usage as the gateway reports it: batches committed once, repeats dropped by (gateway launch, n)."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from core.gateway.usage import GATEWAY_DIED
from core.gateway.wire import UsageLine

MOST = 1 << 40
"""No count of a request is larger: an attached server, or a spool that was tampered with, may say anything."""


NEAR_S = 60.0
"""A request that was written down as running has ended within a second or two; the clock may be set meanwhile."""
KEYLESS = "(no key)"
"""Stands for the user where nobody can be named: a program on the network without a key, or with one that is not known.
No user has such a name, as one may have `nobody`."""


class UsageRow(msgspec.Struct, frozen=True):
    """One request, as it is kept: the columns of `usage_lines` but `seq`, in their order. Times in seconds; tokens
    None where nobody could say."""

    id: str
    time: float
    uid: int
    user: str
    groupname: str
    key: str
    deployment: str
    model: str
    version: int
    node: str
    replica: str
    launch: str
    path: str
    status: int
    outcome: str
    requests: int
    prompt_tokens: int | None
    cached_tokens: int | None
    answer_tokens: int | None
    estimated: int
    queue_s: float
    first_byte_s: float | None
    first_token_s: float | None
    total_s: float
    core_s: float


COLUMNS = UsageRow.__struct_fields__
_INSERT = f"INSERT INTO usage_lines ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608


def row_of(line: UsageLine, people: Mapping[int, tuple[str, str]]) -> UsageRow:
    """A line with the user's name and group, which `people` has by uid. A key of a team or a service account is no
    user's: its line has the owner as the gateway was told of it (`account:ci`)."""
    user, group = people.get(line.uid, (f"uid:{line.uid}", "")) if line.uid >= 0 else (line.actor or KEYLESS, "")
    return UsageRow(
        line.id, line.time, line.uid, user, group, line.key, line.deployment, line.model, line.version, line.node,
        line.replica, line.launch, line.path, line.status, line.outcome, _count(line.requests) or 1,
        _count(line.prompt_tokens), _count(line.cached_tokens), _count(line.answer_tokens), int(line.estimated),
        line.queue_s, line.first_byte_s, line.first_token_s, line.total_s, line.core_s,
    )  # fmt: skip


def _ended(db: sqlite3.Connection, row: UsageRow) -> bool:
    """Has a request ended by itself that was written down as running when its gateway was killed?"""
    if row.outcome != GATEWAY_DIED:
        return False
    near = (row.time - NEAR_S, row.time + NEAR_S, row.id)
    return db.execute("SELECT 1 FROM usage_lines WHERE time BETWEEN ? AND ? AND id = ?", near).fetchone() is not None


def _count(said: int | None) -> int | None:
    return said if said is not None and 0 <= said < MOST else None


def commit_batch(db: sqlite3.Connection, gateway: str, n: int, rows: Sequence[UsageRow]) -> bool:
    """Write one batch inside a transaction. False if it was committed before."""
    mark = db.execute("SELECT n FROM usage_mark WHERE gateway = ?", (gateway,)).fetchone()
    if mark is not None and n <= mark[0]:
        return False
    db.executemany(_INSERT, [msgspec.structs.astuple(row) for row in rows if not _ended(db, row)])
    db.execute(
        "INSERT INTO usage_mark (gateway, n) VALUES (?, ?) ON CONFLICT (gateway) DO UPDATE SET n = excluded.n",
        (gateway, n),
    )
    return True
