"""The SQL of API keys; each function runs inside a transaction or a read."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

import msgspec

from core.nouns import Key


class KeyRow(NamedTuple):
    """A key and the hashes of its secrets."""

    key: Key
    hash: str
    old_hash: str | None


def all_keys(db: sqlite3.Connection) -> list[KeyRow]:
    """Oldest first."""
    rows = db.execute("SELECT data, hash, old_hash FROM keys ORDER BY at, id")
    return [KeyRow(msgspec.json.decode(row[0], type=Key), row[1], row[2]) for row in rows]


def key_of(db: sqlite3.Connection, hash: str) -> tuple[str, float | None]:
    """The id of the key that has, or had, the secret with this hash, and when (epoch seconds) it was rotated away; ""
    for none."""
    row = db.execute("SELECT id FROM keys WHERE hash = ?", (hash,)).fetchone()
    if row is not None:
        return str(row[0]), None
    row = db.execute("SELECT key, away_at FROM key_secrets_before WHERE hash = ?", (hash,)).fetchone()
    return (str(row[0]), float(row[1])) if row is not None else ("", None)


def away(db: sqlite3.Connection) -> dict[str, tuple[str, float]]:
    """By the hash of each secret that was rotated away, of which key it was (its id), and when (epoch seconds)."""
    return {row[0]: (row[1], row[2]) for row in db.execute("SELECT hash, key, away_at FROM key_secrets_before")}


def put_away(db: sqlite3.Connection, row: KeyRow, at: float) -> None:
    """Remember the secret that is rotated away at `at`, for whoever finds it later."""
    db.execute(
        "INSERT OR REPLACE INTO key_secrets_before (hash, key, away_at) VALUES (?, ?, ?)", (row.hash, row.key.id, at)
    )


def put_key(db: sqlite3.Connection, row: KeyRow) -> None:
    data = msgspec.json.encode(row.key).decode()
    db.execute(
        "INSERT INTO keys (id, hash, old_hash, at, data) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO UPDATE SET hash = excluded.hash, old_hash = excluded.old_hash, data = excluded.data",
        (row.key.id, row.hash, row.old_hash, row.key.created_at, data),
    )
