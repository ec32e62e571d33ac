"""Whether a chain is the one that was signed: its checkpoints, from the database and from audit.proof, against it."""

from __future__ import annotations

import sqlite3
from typing import NamedTuple

from core.audit.chain import NOTHING_SEALED, Sealed
from core.errors import StoreError
from core.nouns import ChainFault
from core.paths import Paths
from core.proof.prooffile import Proofs, proofs_of, read_proofs
from core.proof.statements import Checkpoint, Key, holds

NAMED = 5
"""How many checkpoints that do not fit are named one by one."""


class Vouched(NamedTuple):
    faults: list[ChainFault]
    number: int
    """Of the last checkpoint that there is anywhere."""


def proofs_in(db: sqlite3.Connection) -> Proofs:
    """The keys and checkpoints of a database, in their order."""
    rows = [row[0].encode() for row in db.execute("SELECT line FROM audit_keys ORDER BY number")]
    rows += [row[0].encode() for row in db.execute("SELECT line FROM audit_checkpoints ORDER BY number")]
    return proofs_of(rows)


def outside_of(paths: Paths) -> Proofs:
    """What audit.proof has: read it before a view of the database is taken, or a checkpoint that is signed in between
    looks like one of records that were cut. Raises `StoreError`."""
    try:
        return read_proofs(paths.audit_proof)
    except OSError as error:
        raise StoreError("audit.proof cannot be read", error.strerror or str(error), "mend its mode") from error


def keys_of(db: sqlite3.Connection, outside: Proofs) -> dict[str, Key]:
    """All keys of the installation, by id."""
    return _keys([*proofs_in(db).keys, *outside.keys])[0]


def vouched(db: sqlite3.Connection, outside: Proofs, after: int, sealed: Sealed = NOTHING_SEALED) -> Vouched:
    """Compare the records with every checkpoint of this database whose number is above `after` (those before were
    accepted), and that no archive has. `outside`: audit.proof as it was before this view of the database."""
    inside = proofs_in(db)
    database = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
    every = {each.line(): each for each in (*inside.checkpoints, *outside.checkpoints)}
    mine = sorted((each for each in every.values() if each.database == database), key=lambda each: each.number)
    faults = [
        ChainFault(wrong=None, how="checkpoint", message=f"line {number} of {place} is damaged")
        for place, proofs in (("audit.proof", outside), ("the table audit_checkpoints", inside))
        for number in proofs.damaged[:1]
    ]
    keys, wrong = _keys([*inside.keys, *outside.keys])
    faults += wrong
    known = {each.line() for each in inside.checkpoints}
    unfit = []
    for each in mine:
        if each.number > after and each.seq >= sealed.last and (told := _unfit(db, each, keys, sealed)):
            how = "checkpoint"
            if each.line() not in known and holds_of(each, keys):  # it was kept in the database first
                how, told = "older", f"the database is an older copy: {told}"
            unfit.append(ChainFault(wrong=each.seq, how=how, message=told))
    if len(unfit) > NAMED:
        more = f"{len(unfit) - NAMED + 1} more checkpoints do not fit either, the last for record {unfit[-1].wrong}"
        last = unfit[NAMED - 1]
        unfit[NAMED - 1 :] = [ChainFault(wrong=last.wrong, how=last.how, message=more)]
    return Vouched(faults + unfit, max((each.number for each in every.values()), default=0))


def _keys(found: list[Key]) -> tuple[dict[str, Key], list[ChainFault]]:
    """By id, and what is wrong with them: each is signed by the one before, or says that that one was lost."""
    keys: dict[str, Key] = {}
    faults = []
    before: Key | None = None
    for each in sorted({key.line(): key for key in found}.values(), key=lambda key: key.number):
        if before is not None and each.number == before.number:
            told = f"there are two keys with the number {each.number}"
            faults.append(ChainFault(wrong=None, how="checkpoint", message=told))
        elif before is not None and each.signature and not holds(each, before.key):
            told = f"key {each.number} is not signed by the one before it"
            faults.append(ChainFault(wrong=None, how="checkpoint", message=told))
        keys.setdefault(each.id, each)
        before = each
    return keys, faults


def holds_of(each: Checkpoint, keys: dict[str, Key]) -> bool:
    """Whether a key of the installation signed it."""
    key = keys.get(each.key)
    return key is not None and holds(each, key.key)


def _unfit(db: sqlite3.Connection, each: Checkpoint, keys: dict[str, Key], sealed: Sealed) -> str:
    if not holds_of(each, keys):
        return f"checkpoint {each.number} (record {each.seq}) is not signed by a key of this installation"
    sql = "SELECT hash FROM audit WHERE seq = ?"
    row = (sealed.hash,) if each.seq == sealed.last else db.execute(sql, (each.seq,)).fetchone()
    if row is None:
        return f"checkpoint {each.number} of {each.time} signed {each.seq} records, and that one is not here"
    if row[0] != each.hash:
        return f"record {each.seq} is not the one that checkpoint {each.number} of {each.time} signed"
    return ""
