"""The seals in a database: which records lie in archives, and whether those that say so are right."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from core.audit.chain import Sealed
from core.audit.vouched import keys_of
from core.nouns import AuditArchive, ChainFault
from core.proof.prooffile import Proofs
from core.proof.statements import Key, Seal, holds, parse_seal

ARCHIVE = "audit.archive"
"""The verb of a record that seals."""


def sealed_in(db: sqlite3.Connection) -> Sealed:
    """The last record that is in an archive, as the newest seal says, right or wrong."""
    seal = newest(db)
    return Sealed(seal.last, seal.hash) if seal else Sealed()


def newest(db: sqlite3.Connection) -> Seal | None:
    """The last seal; None for none, or one that is damaged."""
    row = db.execute("SELECT line FROM audit_seals ORDER BY number DESC LIMIT 1").fetchone()
    try:
        return parse_seal(row[0].encode()) if row else None
    except ValueError:
        return None


def check(db: sqlite3.Connection, outside: Proofs) -> tuple[Sealed, list[ChainFault]]:
    """What is sealed, as far as it is rightly so, and what is wrong with the seals. `outside`: audit.proof."""
    rows = db.execute("SELECT number, last, line FROM audit_seals ORDER BY number").fetchall()
    if not rows:
        return Sealed(), []
    keys = keys_of(db, outside)
    database = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()[0]
    before: Seal | None = None
    for expected, (number, last, line) in enumerate(rows, 1):
        told = ""
        try:
            seal = parse_seal(line.encode())
        except ValueError:
            return _until(before), [_fault(last, f"seal {number} is damaged")]
        follows = before.last + 1 if before else 1
        if (seal.number, number, seal.last) != (expected, expected, last) or seal.first != follows:
            told = f"seal {number} stands where another one belongs"
        elif seal.database != database:
            told = f"seal {number} is of another database"
        elif not signed(seal, keys):
            told = f"seal {number} (records {seal.first} to {seal.last}) is not signed by a key of this installation"
        if told:
            return _until(before), [_fault(last, told)]
        before = seal
    assert before is not None
    # Its record comes after all that it seals, so that it is here; those of the seals before may be archived.
    sql = "SELECT 1 FROM audit WHERE verb = ? AND outcome = 'done' AND json_extract(after, '$.seal') = ? LIMIT 1"
    if db.execute(sql, (ARCHIVE, before.line().decode())).fetchone() is None:
        return _until(before), [_fault(before.last, f"no record names seal {before.number}")]
    return _until(before), []


def signed(seal: Seal, keys: dict[str, Key]) -> bool:
    """Whether the key that the seal names is one of `keys` and signed it."""
    key = keys.get(seal.key)
    return key is not None and holds(seal, key.key)


def archives_in(db: sqlite3.Connection) -> list[AuditArchive]:
    """All of them, the oldest first; one whose seal is damaged is left out. Looks at the files: blocks."""
    found = []
    for file, size, line in db.execute("SELECT file, bytes, line FROM audit_seals ORDER BY number"):
        try:
            seal = parse_seal(line.encode())
        except ValueError:
            continue
        found.append(
            AuditArchive(
                number=seal.number, first=seal.first, last=seal.last, began=seal.began, ended=seal.ended,
                hash=seal.hash, digest=seal.digest, file=file, bytes=size, there=_is_there(Path(file), size),
                time=seal.time, key=seal.key,
            )
        )  # fmt: skip
    return found


def _is_there(path: Path, size: int) -> bool:
    try:
        return path.is_file() and path.stat().st_size == size
    except OSError:
        return False


def _until(seal: Seal | None) -> Sealed:
    return Sealed(seal.last, seal.hash) if seal else Sealed()


def _fault(last: int, message: str) -> ChainFault:
    return ChainFault(wrong=last, how="seal", message=message)
