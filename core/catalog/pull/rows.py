"""What is kept of a pull in the database; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3

import msgspec

from core.catalog.pull.source import Hub, Web
from core.nouns import NO_OPTIONS, Actor, ImportOptions, Pull

KEPT = 50
"""Pulls that are over and still told of."""


class Row(msgspec.Struct, frozen=True):
    """A pull with what the next daemon needs to go on. Neither a token nor what follows the `?` of an address is here:
    `secret` says that it needs one, so that it waits until its owner gives it again."""

    pull: Pull
    actor: Actor
    request: str
    source: Hub | Web
    urls: dict[str, str]
    """Of each file."""
    endpoint: str
    """Of the hub."""
    trusted: bool
    """The settings name it: it may be on a private network."""
    secret: bool
    options: ImportOptions = NO_OPTIONS
    begun: bool = False
    """It has run before: what its server has is looked at anew."""
    chosen: str = ""
    """What stands for its files after the colon of a repository, where that is no quantisation."""

    @property
    def handle(self) -> str:
        """What stands for its files after the colon."""
        return self.chosen or self.pull.quantization


def replaced(row: Row, **fields: object) -> Row:
    """A row whose pull has other fields. Of one that came to nothing nothing is deployed."""
    pull = msgspec.structs.replace(row.pull, **fields)
    if pull.state in ("failed", "cancelled") and pull.deploy is not None and pull.deploy.state == "waits":
        pull = msgspec.structs.replace(pull, deploy=msgspec.structs.replace(pull.deploy, state="dropped"))
    return msgspec.structs.replace(row, pull=pull)


def load(db: sqlite3.Connection) -> list[Row]:
    """All, the oldest first."""
    rows = db.execute("SELECT data FROM pulls ORDER BY started_at, id")
    return [msgspec.json.decode(row[0], type=Row) for row in rows]


def one(db: sqlite3.Connection, id: str) -> Row | None:
    found = db.execute("SELECT data FROM pulls WHERE id = ?", (id,)).fetchone()
    return msgspec.json.decode(found[0], type=Row) if found is not None else None


def put(db: sqlite3.Connection, row: Row) -> None:
    """Write it; the oldest of those that are over go."""
    db.execute(
        "INSERT OR REPLACE INTO pulls (id, started_at, data) VALUES (?, ?, ?)",
        (row.pull.id, row.pull.started_at, msgspec.json.encode(row).decode()),
    )
    over = [each.pull.id for each in load(db) if not each.pull.open]
    db.executemany("DELETE FROM pulls WHERE id = ?", [(id,) for id in over[:-KEPT]])


def put_run(db: sqlite3.Connection, row: Row) -> None:
    """Write what a run knows of it; what persons may change meanwhile stays as they said."""
    now = one(db, row.pull.id)
    put(db, replaced(row, limit=now.pull.limit, deploy=now.pull.deploy) if now is not None else row)


def limit(db: sqlite3.Connection, id: str, limit: int) -> None:
    """Give one another cap, whatever else its row says by now."""
    now = one(db, id)
    if now is not None:
        put(db, replaced(now, limit=limit))
