"""The SQL of turns that are being answered, as a table has them: which of them runs is for who answers them."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from core.chats import tables
from core.chats.sealed import Ring
from core.chats.tables import Owner
from core.errors import Failed, Locked
from core.nouns import Turn


class InFlight(NamedTuple):
    """A turn that is being answered, and the chat that it is in."""

    turn: str
    n: int
    chat: str
    deployment: str
    owner: Owner


def in_flight(db: sqlite3.Connection) -> list[InFlight]:
    """Nothing is opened for it."""
    rows = db.execute(
        "SELECT t.id, t.n, c.id, c.deployment, c.owner_uid, c.owner FROM turns t JOIN chats c ON c.id = t.chat"
        " WHERE t.state IN ('waiting', 'streaming')"
    )
    return [InFlight(row[0], row[1], row[2], row[3], Owner(row[4], row[5])) for row in rows]


def stopped(db: sqlite3.Connection, turn: str) -> None:
    """A turn is over; what was said in it stays as it is."""
    db.execute("UPDATE turns SET state = 'stopped' WHERE id = ?", (turn,))


def delete_turn(db: sqlite3.Connection, id: str) -> None:
    db.execute("DELETE FROM turns WHERE id = ?", (id,))


def unfinished(db: sqlite3.Connection, ring: Ring) -> list[tuple[Turn, int, int, str, str]]:
    """(turn, raw offset, owner's uid and name, deployment) of turns that were in flight when the daemon ended. One that
    somebody has changed is left out: it can only be removed."""
    rows = db.execute(
        "SELECT t.id, t.raw_offset, c.owner_uid, c.owner, c.deployment FROM turns t JOIN chats c ON c.id = t.chat"
        " WHERE t.state IN ('waiting', 'streaming')"
    ).fetchall()
    found = []
    for id, offset, uid, name, deployment in rows:
        try:
            turn = tables.one_turn(db, ring, id)
        except Locked:
            raise
        except Failed:
            continue
        if turn is not None:
            found.append((turn, offset, uid, name, deployment))
    return found
