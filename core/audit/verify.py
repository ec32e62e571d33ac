"""Verifying a chain in its database: its records, its end against audit.head, and which faults were accepted."""

from __future__ import annotations

import functools
import hashlib
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from core.audit import seals
from core.audit.chain import LOWEST, SELECT, Rows, Sealed, Verdict, digest, further, inspect
from core.audit.outside import Accepted, Head, read_accepted, read_head
from core.audit.vouched import outside_of, vouched
from core.errors import StoreError
from core.nouns import AcceptedFault, ChainFault, ChainReport
from core.paths import Paths
from core.proof.prooffile import Proofs

ACCEPT = "audit.accept"
"""The verb of a record that accepts."""
NAMED = 10
"""How many faults are named one by one."""


class Fault(msgspec.Struct, frozen=True):
    """What was found before a record hid it: row `audit_fault` of the table meta, until it is accepted."""

    wrong: int
    how: str
    time: str


class Examined(msgspec.Struct, frozen=True):
    """A verification, and the state of all that it saw: `state` over the records up to seq `last`."""

    report: ChainReport
    state: State
    last: int
    number: int
    """Of the last checkpoint."""


class State:
    """The hash of records as they are found, right or wrong: over each column a letter for its type, its length in
    bytes, a colon and its bytes (docs/audit.md)."""

    def __init__(self, known: Any = None) -> None:
        self._hash = known or hashlib.sha256()

    def add(self, rows: Iterable[tuple[Any, ...]]) -> int:
        """Take rows; the last seq of them, `LOWEST` for none."""
        last = LOWEST
        for row in rows:
            self._hash.update(b"".join(map(_told, row)))
            last = row[0]
        return last

    def copy(self) -> State:
        return State(self._hash.copy())

    def hex(self) -> str:
        return str(self._hash.hexdigest())


def _told(value: object) -> bytes:
    if isinstance(value, str):
        raw, letter = value.encode("utf-8", "surrogateescape"), b"t"
    elif isinstance(value, bytes):
        raw, letter = value, b"b"
    else:
        raw, letter = repr(value).encode(), b"n" if value is None else b"i" if isinstance(value, int) else b"r"
    return b"%b%d:%b" % (letter, len(raw), raw)


Watch = Callable[[int, int], None]
"""Told how many records of how many were looked at; what it raises ends the walk."""
LOOKED = 500
"""Records between two words to it."""


def verify_file(paths: Paths, known: Head | None = None, watch: Watch | None = None) -> ChainReport:
    """Verify on a connection of its own, in the caller's thread; a snapshot of the moment it begins. `known` stands for
    an audit.head that could not be written. Raises `StoreError`."""
    return _verified(paths, known, False, watch).report


def examine(paths: Paths, known: Head | None = None) -> Examined:
    """`verify_file`, and the state that was looked at. Raises `StoreError`."""
    return _verified(paths, known, True)


def _verified(paths: Paths, known: Head | None, with_state: bool, watch: Watch | None = None) -> Examined:
    try:
        with closing(sqlite3.connect(f"file:{quote(str(paths.database))}?mode=ro", uri=True, timeout=10)) as db:
            head, outside = known or read_head(paths), outside_of(paths)  # each is never ahead of the database
            db.execute("BEGIN")
            report, number = _report(db, head, read_accepted(paths), outside, watch)
            state, last = _state(db) if with_state else (State(), LOWEST)
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise StoreError("the chain cannot be read", str(error), "see `corral status`") from error
    return Examined(report, state, last, number)


def _report(
    db: sqlite3.Connection, head: Head | None, accepted_by: Accepted | None, outside: Proofs, watch: Watch | None
) -> tuple[ChainReport, int]:
    """The report, and the number of the last checkpoint."""
    sealed, wrong = seals.check(db, outside)
    accept = _acceptance(db, accepted_by)
    if accepted_by is not None and accepted_by.seq <= sealed.last:  # it was archived with what it accepted
        accept, sealed = None, sealed._replace(aside=True)
    same = accept is not None and _state(db, accept[0])[0].hex() == json.loads(accept[10]).get("state")
    begins = accept[0] if accept is not None and same else 0
    verdict, faults = _faults(db, head, begins, sealed, watch)
    known = json.loads(accept[10]).get("checkpoint", 0) if accept is not None and same else 0
    found = vouched(db, outside, known, sealed)
    faults += wrong
    faults += found.faults
    accepted: tuple[AcceptedFault, ...] = ()
    if accept is not None and same:
        accepted = tuple(_accepted(db, accept[0]))
    elif accept is not None:
        faults = [ChainFault(wrong=accept[0], how="accepted", message=_message(accept[0], "accepted", None)),
                  *_not_yet(db, accept[0], faults)]  # fmt: skip
    first = faults[0] if faults else None
    report = ChainReport(
        ok=first is None, records=verdict.records, head=verdict.head, wrong=first.wrong if first else None,
        how=first.how if first else "", message=_told_of(faults, accepted, begins, sealed), faults=tuple(faults),
        accepted=accepted,
    )  # fmt: skip
    return report, found.number


def _faults(
    db: sqlite3.Connection, head: Head | None, begins: int, sealed: Sealed, watch: Watch | None
) -> tuple[Verdict, list[ChainFault]]:
    """How far the chain holds, and what is wrong, the first first. `begins`: where the walk begins, 0 for all."""
    verdict, others = _inspect(db, head, begins, sealed, watch)
    wrong, how, beside = verdict.wrong, verdict.how, verdict.other
    if not how:
        wrong, how = end_wrong(db, verdict.last if verdict.records else 0, head, start(db))
    fault = fault_of(db)
    if fault is not None and (not how or (wrong or 0) >= fault.wrong + (fault.how != "cut")):
        wrong, how, beside = fault.wrong, fault.how, None
    gone = missing_triggers(db)
    if not how and gone:
        how = "open"
    named = {(wrong, how): _message(wrong, how, beside)} if how else {}
    for other in (verdict, *others):
        if other.how and other.wrong != verdict.other:
            named.setdefault((other.wrong, other.how), _message(other.wrong, other.how, other.other))
    if fault is not None:
        named.setdefault((fault.wrong, fault.how), _message(fault.wrong, fault.how, None))
    if gone:
        named.setdefault((None, "open"), _message(None, "open", None))
    return verdict, [ChainFault(wrong=at, how=kind, message=told) for (at, kind), told in named.items()]


def _inspect(
    db: sqlite3.Connection, head: Head | None, begins: int, sealed: Sealed, watch: Watch | None
) -> tuple[Verdict, list[Verdict]]:
    rows = _rows_of(db, watch)
    outside = (head.hash, head.seq) if head else ("", 0)

    def look() -> tuple[Verdict, list[Verdict]]:
        first = inspect(rows, *outside, begins, sealed)
        return first, list(islice(further(rows, first, *outside), NAMED - 1))

    try:
        return look()
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
    # Somebody wrote bytes into a text. Not always so: a function for each text costs 3 s in a million records.
    db.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        return look()
    finally:
        db.text_factory = str


def _rows_of(db: sqlite3.Connection, watch: Watch | None) -> Rows:
    (of,) = db.execute("SELECT max(seq) FROM audit").fetchone()

    def rows(first: int) -> Iterator[tuple[Any, ...]]:
        found = db.execute(SELECT + " WHERE seq >= ? ORDER BY seq", (first,))
        if watch is None:
            yield from found
            return
        while page := found.fetchmany(LOOKED):
            yield from page
            watch(page[-1][0], of)

    return rows


# ------------------------------------------------------------------------------------------------ accepted faults


def _acceptance(db: sqlite3.Connection, outside: Accepted | None) -> tuple[Any, ...] | None:
    """The record that audit.accepted names, if it is as it was written."""
    if outside is None:
        return None
    try:
        row: tuple[Any, ...] | None = db.execute(SELECT + " WHERE seq = ?", (outside.seq,)).fetchone()
    except sqlite3.OperationalError:  # bytes that are no text: changed
        return None
    right = row is not None and row[5] == ACCEPT and row[14] == outside.hash and digest(row) == row[14]
    return row if right else None


def _state(db: sqlite3.Connection, below: int | None = None) -> tuple[State, int]:
    """The state of the records with a seq below `below` (None: all), and the last seq of them."""
    sql = SELECT + (" ORDER BY seq" if below is None else f" WHERE seq < {below:d} ORDER BY seq")
    try:
        state = State()
        return state, state.add(db.execute(sql))
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
    db.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    try:
        state = State()
        return state, state.add(db.execute(sql))
    finally:
        db.text_factory = str


def _accepted(db: sqlite3.Connection, upto: int) -> Iterator[AcceptedFault]:
    """All that was accepted by records up to seq `upto`, which hold: the newest comes last."""
    sql = (
        "SELECT seq, time, actor, before, reason FROM audit"
        " WHERE seq <= ? AND verb = ? AND outcome = 'done' AND object = 'audit:chain' ORDER BY seq"
    )
    for seq, time, actor, before, reason in db.execute(sql, (upto, ACCEPT)):
        for fault in _listed(before):
            yield AcceptedFault(
                seq=seq, wrong=fault.wrong, how=fault.how, message=fault.message, by=actor, time=time, reason=reason
            )


def _listed(before: str) -> list[ChainFault]:
    """The faults that an accepting record names; none for a record that was not written by us."""
    try:
        return msgspec.json.decode(before, type=dict[str, list[ChainFault]]).get("faults", [])
    except msgspec.MsgspecError:
        return []


def _not_yet(db: sqlite3.Connection, upto: int, faults: list[ChainFault]) -> list[ChainFault]:
    """Those of `faults` that no record up to seq `upto` accepts."""
    known = {(fault.wrong, fault.how) for fault in _accepted(db, upto)}
    return [fault for fault in faults if (fault.wrong, fault.how) not in known]


# ------------------------------------------------------------------------------------------------ the end, the words


def start(db: sqlite3.Connection) -> Head | None:
    """The head that this database began from."""
    row = db.execute("SELECT value FROM meta WHERE key = 'audit_start'").fetchone()
    return msgspec.json.decode(row[0], type=Head) if row else None


def fault_of(db: sqlite3.Connection) -> Fault | None:
    """What was found while records were written, and is not accepted yet."""
    row = db.execute("SELECT value FROM meta WHERE key = 'audit_fault'").fetchone()
    return msgspec.json.decode(row[0], type=Fault) if row else None


@functools.cache
def _triggers() -> dict[str, str]:
    """Those that refuse UPDATE, DELETE and REPLACE: name to SQL, as the migrations make them."""
    files = sorted((Path(__file__).parent / "migrations").glob("*.sql"))
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    return {found[2]: found[1] for found in re.finditer(r"(CREATE TRIGGER (\w+) .*?\nEND);", text, re.S)}


def missing_triggers(db: sqlite3.Connection) -> dict[str, str]:
    """Those of the triggers that are not there, or are no longer what they were."""
    there = dict(db.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name LIKE 'audit%'"))
    return {name: sql for name, sql in _triggers().items() if there.get(name) != sql}


def put_back_triggers(db: sqlite3.Connection) -> list[str]:
    """Make what `missing_triggers` names; the names."""
    missing = missing_triggers(db)
    for name, sql in missing.items():
        db.execute(f"DROP TRIGGER IF EXISTS {name}")
        db.execute(sql)
    return sorted(missing)


def end_wrong(db: sqlite3.Connection, last: int, head: Head | None, start: Head | None) -> tuple[int | None, str]:
    """Compare a chain that ends with `last` (0: it is empty) with the head outside, which may be behind and never
    ahead; `start` is the head that this database began from, which a crash right after the first commit leaves in
    place."""
    if not last:
        return (1, "cut") if start is not None else (None, "")
    if head is None:
        return last, "head"
    if head == start:
        return None, ""
    if head.seq > last:
        return last + 1, "cut"
    found = db.execute("SELECT hash FROM audit WHERE seq = ?", (head.seq,)).fetchone()
    return (None, "") if found is not None and found[0] == head.hash else (head.seq, "head")


def _told_of(faults: list[ChainFault], accepted: tuple[AcceptedFault, ...], begins: int, sealed: Sealed) -> str:
    if faults:
        more = len(faults) - 1
        return faults[0].message + (f"; and {more} more {'faults' if more > 1 else 'fault'}" if more else "")
    if not accepted:
        before = f"; records 1 to {sealed.last} lie in archives" if sealed.last else ""
        return f"every record follows from the one before{before}"
    told = [
        f"a fault{'' if each.wrong is None else f' at record {each.wrong}'} ({each.how}) was accepted by {each.by}"
        f" at {each.time}: {each.reason}"
        for each in accepted
    ]
    return "; ".join([f"chain whole from record {begins} on", *told])


def _message(wrong: int | None, how: str, other: int | None) -> str:
    if how == "removed" and wrong is not None and other is not None and other - wrong > 1:
        return f"records {wrong} to {other - 1} were removed, or record {other} was inserted"
    if how == "inserted" and other is not None:
        return f"record {wrong} was inserted after record {other}, or those between were removed"
    told = {
        "changed": f"record {wrong} was changed",
        "removed": f"record {wrong} was removed",
        "inserted": f"record {wrong} was inserted",
        "appended": f"record {wrong} was appended by somebody else",
        "swapped": f"records {wrong} and {other} were swapped",
        "cut": f"the chain was cut: record {wrong} and what followed are missing",
        "lost": "the records before this chain are not here: the database was removed, replaced or set aside",
        "open": "the triggers that refuse changes are gone, or do something else",
        "head": f"audit.head does not fit record {wrong}: one of the two was changed, or audit.head was removed",
        "accepted": f"the records before {wrong} are no longer those that record {wrong} accepted",
    }
    return told.get(how, how)


def said(wrong: int | None, how: str) -> str:
    """A fault as a sentence."""
    return _message(wrong, how, None)
