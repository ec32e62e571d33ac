"""The audit log over the store: append within a transaction, list, verify against the head kept outside."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec

from core.audit.chain import COLUMNS, GENESIS, SELECT, Verdict, digest, inspect
from core.errors import Invalid, StoreError
from core.nouns import Actor, AuditRecord, ChainReport, Outcome
from core.settings import Paths
from core.store import Store

log = logging.getLogger(__name__)

_VERB = re.compile(r"[a-z]+(\.[a-z-]+)+")
REASON_LIMIT = 2000
TRIGGERS = {"audit_keeps_rows", "audit_keeps_content"}


class Head(msgspec.Struct, frozen=True):
    """What audit.head says: the last record that was committed when it was written."""

    version: int
    seq: int
    hash: str


class Fault(msgspec.Struct, frozen=True):
    """What a start found before its first record: row `audit_fault` of the table meta, which stays."""

    wrong: int
    how: str
    time: str


class Audit:
    """Append, list and verify. One instance a daemon; `compare` comes before the first record."""

    def __init__(self, store: Store, paths: Paths, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._paths = paths
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._head: Head | None = None
        self._goes_on: Head | None = None
        """Of a chain whose tail was cut: the head that its next record follows, so that the gap stays to be seen."""
        self._behind = ""
        """Why audit.head could not be written after the last commit; empty if it was."""
        self.on_record: list[Callable[[AuditRecord], Any]] = []
        """Called from the event loop after each commit."""
        self.status = ChainReport(ok=True, records=0, head=GENESIS)
        """The last verification, with the count and head of what came after it."""

    def append(
        self, db: sqlite3.Connection, *, actor: Actor, verb: str, object: str, request: str, outcome: Outcome,
        effect: str = "", before: Any = None, after: Any = None, reason: str = "",
    ) -> AuditRecord:  # fmt: skip
        """Write one record inside the transaction of what it records. Raises `ValueError` for a malformed verb."""
        if not _VERB.fullmatch(verb) or ":" not in object:
            raise ValueError(f"{verb!r} on {object!r} is no verb and object")
        last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
        if self._goes_on is not None and (last is None or last[0] < self._goes_on.seq):
            last = (self._goes_on.seq, self._goes_on.hash)
        if last is None:
            head = read_head(self._paths)
            last = (0, head.hash if head else GENESIS)
            # An emptied table is told from a new database by this row.
            begun = msgspec.json.encode(head or Head(1, 0, GENESIS)).decode()
            db.execute("INSERT INTO meta (key, value) VALUES ('audit_start', ?)", (begun,))
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        row: tuple[Any, ...] = (
            last[0] + 1, moment, actor.name, actor.uid, actor.through, verb, object, request, effect,
            msgspec.json.encode(before).decode(), msgspec.json.encode(after).decode(), outcome,
            reason[:REASON_LIMIT], last[1],
        )  # fmt: skip
        row = (*row, digest(row))
        db.execute(f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * 15)})", row)  # noqa: S608
        record = to_record(row)
        self._store.on_commit(lambda: self._committed(record))
        return record

    async def compare(self) -> None:
        """Compare the chain's end with audit.head before the first record of this daemon replaces that: what was cut or
        changed while no daemon ran is kept as `Fault`, for `verify` and every status. Raises `StoreError`."""
        head = read_head(self._paths)
        moment = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

        def work(db: sqlite3.Connection) -> Head | None:
            last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
            start = _start(db)
            wrong, how = _end_wrong(db, last[0] if last else 0, head, start)
            if wrong is None:
                return None
            fault = msgspec.json.encode(Fault(wrong, how, moment)).decode()
            db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('audit_fault', ?)", (fault,))
            log.error("the audit chain does not verify: %s", _message(wrong, how, None))
            return head if how == "cut" else None

        self._goes_on = await self._store.transact(work)

    def _committed(self, record: AuditRecord) -> None:
        """In the writer's thread, after the COMMIT: the head outside can only ever be behind."""
        self._put_head(Head(1, record.seq, record.hash))
        self._loop.call_soon_threadsafe(self._tell, record)

    def _put_head(self, head: Head) -> None:
        """Write audit.head; a disk that refuses is said in `troubles`, and the record stands."""
        self._head = head
        try:
            write_head(self._paths, head)
        except OSError as error:
            if not self._behind:
                log.error("audit.head could not be written and will be tried again: %s", error)
            self._behind = error.strerror or str(error)
        else:
            self._behind = ""

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        if not self._behind:
            return []
        return [f"audit.head is behind the records, so that a cut tail would not be found: {self._behind}"]

    async def recover(self) -> None:
        """Called every few seconds: an audit.head that could not be written is tried again. Raises `StoreError`."""

        def again(db: sqlite3.Connection) -> None:
            last = db.execute("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1").fetchone()
            if last is not None:
                self._store.on_commit(lambda: self._put_head(Head(1, *last)))

        if self._behind:
            await self._store.transact(again)  # in its queue, so that no older head follows a newer one

    def _tell(self, record: AuditRecord) -> None:
        self.status = msgspec.structs.replace(
            self.status, records=record.seq, head=record.hash if self.status.ok else self.status.head
        )
        for listener in self.on_record:
            listener(record)

    async def ls(
        self, *, actor: str | None = None, verb: str | None = None, object: str | None = None,
        outcome: str | None = None, since: str | None = None, until: str | None = None,
        before_seq: int | None = None, after_seq: int | None = None, limit: int = 100,
    ) -> list[AuditRecord]:  # fmt: skip
        """Records, newest last. `verb` and `object` may end in `*`; times are ISO 8601 or seconds since the epoch."""
        where: list[str] = []
        values: list[Any] = []
        for column, value in (("actor", actor), ("verb", verb), ("object", object), ("outcome", outcome)):
            if value and value.endswith("*"):
                where.append(f"substr({column}, 1, ?) = ?")
                values += [len(value) - 1, value[:-1]]
            elif value:
                where.append(f"{column} = ?")
                values.append(value)
        for op, moment in ((">=", since), ("<=", until)):
            if moment:
                where.append(f"time {op} ?")
                values.append(_moment(moment))
        for op, seq in (("<", before_seq), (">", after_seq)):
            if seq is not None:
                where.append(f"seq {op} ?")
                values.append(seq)
        clause = " WHERE " + " AND ".join(where) if where else ""
        order = "ASC" if after_seq is not None else "DESC"
        rows = await self._store.read(
            lambda db: db.execute(f"{SELECT}{clause} ORDER BY seq {order} LIMIT ?", (*values, limit)).fetchall()
        )
        records = [to_record(row) for row in rows]
        return records if order == "ASC" else records[::-1]

    async def verify(self) -> ChainReport:
        """Walk the whole chain and compare its end with the head outside the database: with the one in memory while
        audit.head cannot be written."""
        started = time.monotonic()
        report = await asyncio.to_thread(verify_file, self._paths, self._head if self._behind else None)
        report = msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))
        # Records that were committed meanwhile stay counted.
        if report.ok and self.status.records > report.records:
            self.status = msgspec.structs.replace(report, records=self.status.records, head=self.status.head)
        else:
            self.status = report
        return report


def verify_file(paths: Paths, known: Head | None = None) -> ChainReport:
    """Verify on a connection of its own, in the caller's thread; a snapshot of the moment it begins. `known` stands for
    an audit.head that could not be written. Raises `StoreError`."""
    try:
        with closing(sqlite3.connect(f"file:{quote(str(paths.database))}?mode=ro", uri=True, timeout=10)) as db:
            db.execute("BEGIN")
            head = known or read_head(paths)
            verdict = _inspect(db, head)
            wrong, how = verdict.wrong, verdict.how
            if not how:
                wrong, how = _end_wrong(db, verdict.last if verdict.records else 0, head, _start(db))
            fault = _fault(db)
            if fault is not None and (not how or (wrong or 0) >= fault.wrong + (fault.how != "cut")):
                wrong, how = fault.wrong, fault.how
            if not how and _open_to_changes(db):
                how = "open"
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        raise StoreError("the chain cannot be read", str(error), "see `corral status`") from error
    return ChainReport(
        ok=not how, records=verdict.records, head=verdict.head, wrong=wrong, how=how,
        message=_message(wrong, how, verdict.other),
    )  # fmt: skip


def _inspect(db: sqlite3.Connection, head: Head | None) -> Verdict:
    def rows(first: int) -> Iterator[tuple[Any, ...]]:
        yield from db.execute(SELECT + " WHERE seq >= ? ORDER BY seq", (first,))

    outside = (head.hash, head.seq) if head else ("", 0)
    try:
        return inspect(rows, *outside)
    except sqlite3.OperationalError as error:
        if "decode to UTF-8" not in str(error):
            raise
        # Somebody wrote bytes into a text. Not always so: a function for each text costs 3 s in a million records.
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return inspect(rows, *outside)


def _start(db: sqlite3.Connection) -> Head | None:
    """The head that this database began from."""
    row = db.execute("SELECT value FROM meta WHERE key = 'audit_start'").fetchone()
    return msgspec.json.decode(row[0], type=Head) if row else None


def _fault(db: sqlite3.Connection) -> Fault | None:
    row = db.execute("SELECT value FROM meta WHERE key = 'audit_fault'").fetchone()
    return msgspec.json.decode(row[0], type=Fault) if row else None


def _open_to_changes(db: sqlite3.Connection) -> bool:
    """The triggers that refuse UPDATE and DELETE are not all there."""
    sql = "SELECT name FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'audit'"
    return not {row[0] for row in db.execute(sql)} >= TRIGGERS


def _end_wrong(db: sqlite3.Connection, last: int, head: Head | None, start: Head | None) -> tuple[int | None, str]:
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


def _message(wrong: int | None, how: str, other: int | None) -> str:
    told = {
        "": "every record follows from the one before",
        "changed": f"record {wrong} was changed",
        "removed": f"record {wrong} was removed",
        "inserted": f"record {wrong} was inserted",
        "swapped": f"records {wrong} and {other} were swapped",
        "cut": f"the chain was cut: record {wrong} and what followed are missing",
        "open": "every record follows from the one before, but the triggers that refuse changes are gone",
        "head": f"audit.head does not fit record {wrong}: one of the two was changed, or audit.head was removed",
    }
    return told.get(how, how)


def read_head(paths: Paths) -> Head | None:
    """The head outside the database; None if there is none. A damaged file reads as a head that fits nothing."""
    try:
        return msgspec.json.decode(paths.audit_head.read_bytes(), type=Head)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError):
        return Head(1, 1, "damaged")


def write_head(paths: Paths, head: Head) -> None:
    """Replace audit.head atomically; a crash leaves the old one, which is only behind. Raises OSError."""
    temporary = paths.audit_head.with_name("audit.head.new")
    text = msgspec.json.encode(head) + b"\n"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(paths.audit_head)
    folder = os.open(paths.state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def to_record(row: tuple[Any, ...]) -> AuditRecord:
    """The noun of a row (COLUMNS in order)."""
    fields = dict(zip(COLUMNS, row, strict=True))
    fields["before"] = json.loads(fields["before"])
    fields["after"] = json.loads(fields["after"])
    return AuditRecord(**fields)


def _moment(text: str) -> str:
    """A time as the column has it. Raises `Invalid`."""
    try:
        number = float(text)
        when = datetime.fromtimestamp(number, UTC)
    except ValueError:
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise Invalid(f"{text!r} is no time", "it is ISO 8601 or seconds since the epoch") from None
        when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
