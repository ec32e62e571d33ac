"""Which records may go into an archive: none that is still needed here, and none that nobody vouches for."""

from __future__ import annotations

import sqlite3

import msgspec

from core.audit import seals
from core.audit.outside import Accepted
from core.errors import Conflict, Failed
from core.proof.prooffile import Proofs
from core.proof.statements import Checkpoint, parse


class Span(msgspec.Struct, frozen=True):
    """What is to be archived: records `first` to `last`, which a checkpoint signed."""

    first: int
    last: int
    hash: str
    began: str
    ended: str
    checkpoint: int


def plan(
    db: sqlite3.Connection, before: str, sent: int | None, outside: Proofs, accepted: Accepted | None, database: str
) -> Span:
    """What is to be archived of the records whose time is below `before`. `sent`: the last record that every sink has;
    `outside`: audit.proof; `accepted`: the record that accepted a fault. Raises `Conflict` with why that is nothing."""
    sealed, wrong = seals.check(db, outside)
    if wrong:
        raise Failed("nothing is archived", wrong[0].message, "see `corral audit verify`")
    first = sealed.last + 1
    row = db.execute("SELECT min(+seq) FROM audit WHERE time >= ? AND seq >= ?", (before, first)).fetchone()
    (end,) = db.execute("SELECT max(seq) FROM audit").fetchone()
    limit, why = (row[0] - 1 if row[0] is not None else end or 0), f"no record from before {before} is here"
    (running,) = db.execute(
        # +seq: by the index of effects, not through all records
        "SELECT min(+a.seq) FROM audit a WHERE a.effect != '' AND a.outcome = 'intent' AND +a.seq >= ? AND NOT EXISTS"
        " (SELECT 1 FROM audit b WHERE b.effect = a.effect AND b.effect != '' AND +b.seq > a.seq)", (first,)
    ).fetchone()  # fmt: skip
    if running is not None and running <= limit:
        limit, why = running - 1, f"what record {running} began has not ended yet"
    if sent is not None and sent < limit:
        limit, why = sent, f"a sink has records up to {sent} only"
    if limit < first:
        raise Conflict("there is nothing to archive", why)
    if accepted is not None and accepted.seq >= first and accepted.seq > limit:
        raise Conflict(
            "nothing is archived", f"record {accepted.seq} accepted a fault, and is archived with all before it",
            "name a later time",
        )  # fmt: skip
    for line, digest, ended in db.execute(
        "SELECT c.line, a.hash, a.time FROM audit_checkpoints c JOIN audit a ON a.seq = c.seq"
        " WHERE c.seq >= ? AND c.seq <= ? ORDER BY c.number DESC", (first, limit)
    ):  # fmt: skip
        point = _checkpoint(line)
        if point is not None and point.hash == digest and point.database == database:
            began = db.execute("SELECT time FROM audit WHERE seq = ?", (first,)).fetchone()
            if began is None:
                raise Conflict("nothing is archived", f"record {first} is not here", "see `corral audit verify`")
            return Span(first, point.seq, point.hash, began[0], ended, point.number)
    raise Conflict("there is nothing to archive", f"no checkpoint lies between records {first} and {limit}")


def _checkpoint(line: str) -> Checkpoint | None:
    try:
        found = parse(line.encode())
    except ValueError:
        return None
    return found if isinstance(found, Checkpoint) else None
