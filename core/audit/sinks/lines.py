"""What a sink is given: records, keys and checkpoints in their order, each as one line of JSON in ASCII."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from typing import Any

import msgspec

from core.audit.chain import SELECT, digest
from core.audit.log import to_record
from core.proof.encoding import GENESIS

BATCH = 200
"""Records that are sent at once."""


ALERT, WARNING, INFO = 1, 4, 6
"""Severities of syslog."""


class Cursor(msgspec.Struct, frozen=True):
    """How far a sink is: the last record that it has, and the numbers of the last key and checkpoint."""

    database: str
    seq: int = 0
    hash: str = GENESIS
    key: int = 0
    checkpoint: int = 0


class Item(msgspec.Struct, frozen=True):
    """One line. `fields` has what a sink may index; empty for what is no record."""

    text: str
    time: str
    kind: str
    """record, key, checkpoint or broken."""
    fields: dict[str, str] = {}

    @property
    def severity(self) -> int:
        """Alert where somebody broke the glass, warning for what was refused or failed."""
        if self.fields.get("verb") == "access.break-glass" and self.fields.get("outcome") == "done":
            return ALERT
        wrong = self.kind == "broken" or self.fields.get("outcome") in ("refused", "failed", "interrupted")
        return WARNING if wrong else INFO


class Batch(msgspec.Struct, frozen=True):
    items: list[Item]
    after: Cursor
    """When all of them are delivered."""
    broken: str = ""
    """What is wrong with the trail; "" if it goes on from what the sink has."""


def next_batch(db: sqlite3.Connection, cursor: Cursor, now: str) -> Batch:
    """What comes after `cursor`. A trail that does not go on from there is said in a line of its own."""
    database = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
    items: list[Item] = []
    broken = ""
    if cursor.database != database:
        cursor = Cursor(database, key=cursor.key, checkpoint=cursor.checkpoint)
        broken = "the database is another one: its records follow from the first on"
    elif cursor.seq and (moved := _moved(db, cursor)) is not None:
        cursor, broken = moved
    rows = db.execute(SELECT + " WHERE seq > ? ORDER BY seq LIMIT ?", (cursor.seq, BATCH)).fetchall()
    prev, seq, key, checkpoint = cursor.hash, cursor.seq, cursor.key, cursor.checkpoint
    for row in rows:
        if not broken and (digest(row) != row[14] or (seq and (row[13] != prev or row[0] != seq + 1))):
            broken = f"record {row[0]} does not follow from record {seq}, or was changed"
        seq, prev = row[0], row[14]
    for number, line in db.execute("SELECT number, line FROM audit_keys WHERE number > ? ORDER BY number", (key,)):
        items.append(_statement("key", line, now))
        key = number
    items += map(_record, rows)
    sql = "SELECT number, line FROM audit_checkpoints WHERE number > ? AND seq <= ? ORDER BY number LIMIT ?"
    for number, line in db.execute(sql, (checkpoint, seq, BATCH)):
        items.append(_statement("checkpoint", line, now))
        checkpoint = number
    if broken:
        items.insert(0, Item(_text({"corral": "broken", "time": now, "message": broken}), now, "broken"))
    return Batch(items, Cursor(database, seq, prev, key, checkpoint), broken)


def latest(db: sqlite3.Connection) -> Cursor:
    """Where a sink begins that has nothing yet: before the last checkpoint and all keys, after all records."""
    database = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
    row = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
    (number,) = db.execute("SELECT max(number) FROM audit_checkpoints").fetchone()
    return Cursor(database, seq=row[0], hash=row[1], checkpoint=max(0, (number or 0) - 1))


def _moved(db: sqlite3.Connection, cursor: Cursor) -> tuple[Cursor, str] | None:
    """Where to go on, and what is wrong, if the record that the sink has last is not the one that is there."""
    row = db.execute("SELECT hash FROM audit WHERE seq = ?", (cursor.seq,)).fetchone()
    if row is not None and row[0] == cursor.hash:
        return None
    if row is not None:
        told = f"record {cursor.seq} is not the one that was sent: it or one before was changed"
        return msgspec.structs.replace(cursor, hash=row[0]), told
    last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, GENESIS)
    told = f"record {cursor.seq} was sent and the trail ends at {last[0]}: it was cut, or replaced by an older copy"
    return msgspec.structs.replace(cursor, seq=last[0], hash=last[1]), told


def _record(row: tuple[Any, ...]) -> Item:
    try:
        fields = msgspec.to_builtins(to_record(row))
    except ValueError:  # somebody wrote what is no JSON
        fields = {"seq": row[0], "damaged": hashlib.sha256(repr(row).encode()).hexdigest()}
    told = {
        name: str(fields.get(name, "")) for name in ("seq", "actor", "verb", "object", "outcome", "request", "hash")
    }
    return Item(_text(fields), row[1], "record", told)


def _statement(kind: str, line: str, now: str) -> Item:
    return Item(_text({"corral": kind, "line": line}), now, kind)


def _text(value: dict[str, Any]) -> str:
    """ASCII on one line: no letter in it can do anything to who reads it on a terminal."""
    return json.dumps(value, separators=(",", ":"))
