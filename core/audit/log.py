"""The audit log over the store: append within a transaction, list, verify against the head kept outside."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from core import fulldisk
from core.audit import search
from core.audit.chain import COLUMNS, GENESIS, SELECT, digest
from core.audit.outside import Accepted, Head, read_head, write_accepted, write_head
from core.audit.search import wanted
from core.audit.verify import (
    ACCEPT,
    Examined,
    Fault,
    Watch,
    end_wrong,
    examine,
    put_back_triggers,
    said,
    start,
    verify_file,
)
from core.errors import Conflict, Failed, Invalid, StoreError
from core.nouns import Actor, AuditPage, AuditRecord, ChainFault, ChainReport, Outcome
from core.paths import Paths
from core.store import Store
from core.store.faults import store_error

log = logging.getLogger(__name__)

_VERB = re.compile(r"[a-z]+(\.[a-z-]+)+")
REASON_LIMIT = 2000
YIELD_S = 0.001
"""After each few hundred records a verification lets others have the interpreter."""
LOOK = "look again: `corral audit verify`"
NOTHING = Head(1, 0, GENESIS)
"""What audit.head says before the first record of a first chain."""
LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"


class Audit:
    """Append, list and verify. One instance a daemon; `compare` comes before the first record."""

    def __init__(self, store: Store, paths: Paths, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._paths = paths
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._head: Head | None = None
        """The last record that this daemon knows to be committed."""
        self._written: list[Head] = []
        """Records that were appended and are not known to be committed."""
        self._goes_on: Head | None = None
        """Of a chain whose tail was cut: the head that its next record follows, so that the gap stays to be seen."""
        self._behind = ""
        """Why audit.head could not be written after the last commit; empty if it was."""
        self.on_record: list[Callable[[AuditRecord], Any]] = []
        """Called from the event loop after each commit."""
        self.status = ChainReport(ok=True, records=0, head=GENESIS)
        """The last verification, with the count and head of what came after it."""

    @property
    def head(self) -> Head | None:
        """The last record that this daemon knows to be committed; None if there is none."""
        return self._head

    def append(
        self, db: sqlite3.Connection, *, actor: Actor, verb: str, object: str, request: str, outcome: Outcome,
        effect: str = "", before: Any = None, after: Any = None, reason: str = "",
    ) -> AuditRecord:  # fmt: skip
        """Write one record inside the transaction of what it records. Raises `ValueError` for a malformed verb."""
        if not _VERB.fullmatch(verb) or ":" not in object:
            raise ValueError(f"{verb!r} on {object!r} is no verb and object")
        last = self._last(db)
        if verb == ACCEPT and outcome == "done":
            db.execute("DELETE FROM meta WHERE key = 'audit_fault'")  # it is in this record's `before`
        if last is None:
            head = read_head(self._paths)
            last = (0, head.hash if head else GENESIS)
            if head is not None and head.seq:  # a database that was lost, with all its records
                self._keep(db, 1, "lost")
            # An emptied table is told from a new database by this row.
            begun = msgspec.json.encode(head or NOTHING).decode()
            db.execute("INSERT INTO meta (key, value) VALUES ('audit_start', ?)", (begun,))
        now = self._moment()
        row: tuple[Any, ...] = (
            last[0] + 1, now, actor.name, actor.uid, actor.through, verb, object, request, effect,
            msgspec.json.encode(before).decode(), msgspec.json.encode(after).decode(), outcome,
            reason[:REASON_LIMIT], last[1],
        )  # fmt: skip
        row = (*row, digest(row))
        db.execute(f"INSERT INTO audit ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * 15)})", row)  # noqa: S608
        record = to_record(row)
        self._written.append(Head(1, record.seq, record.hash))
        self._store.on_commit(lambda: self._committed(record))
        return record

    def _moment(self) -> str:
        return datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def _last(self, db: sqlite3.Connection) -> tuple[int, str] | None:
        """(seq, hash) that the next record follows; None if it is the first. What somebody else has done to the end
        since the last commit is kept as `Fault`, before the next record hides it."""
        last: tuple[int, str] | None = db.execute(LAST).fetchone()
        foreign = self._foreign(db, last)
        if foreign is not None:
            self._keep(db, *foreign)
            if foreign[1] == "cut" and self._head is not None:
                return self._head.seq, self._head.hash
        if self._goes_on is not None and (last is None or last[0] < self._goes_on.seq):
            return self._goes_on.seq, self._goes_on.hash
        return last

    def _foreign(self, db: sqlite3.Connection, last: tuple[int, str] | None) -> tuple[int, str] | None:
        """(seq, how) if the end is not as this daemon left it, else None."""
        known = Head(1, *last) if last else None
        if known == self._head:
            self._written.clear()  # what was rolled back
            return None
        if self._head is None or known in self._written:
            return None
        if last is None:
            return 1, "cut"
        wrong, how = end_wrong(db, last[0], self._head, None)
        if wrong is not None:
            return wrong, how
        sql = "SELECT seq FROM audit WHERE seq > ? ORDER BY seq LIMIT 1"
        return db.execute(sql, (self._head.seq,)).fetchone()[0], "appended"

    def _keep(self, db: sqlite3.Connection, wrong: int, how: str) -> None:
        fault = msgspec.json.encode(Fault(wrong, how, self._moment())).decode()
        db.execute("INSERT OR IGNORE INTO meta (key, value) VALUES ('audit_fault', ?)", (fault,))
        log.error("the audit chain does not verify: %s", said(wrong, how))
        self._loop.call_soon_threadsafe(self._found, wrong, how)

    def _found(self, wrong: int, how: str) -> None:
        """Say it from now on; `verify` says it in full."""
        if self.status.ok:
            self.status = msgspec.structs.replace(
                self.status, ok=False, wrong=wrong, how=how, message=said(wrong, how)
            )  # fmt: skip

    async def compare(self) -> None:
        """Compare the chain's end with audit.head before the first record of this daemon replaces that: what was cut or
        changed while no daemon ran is kept as `Fault`, for `verify` and every status. A first chain gets its audit.head
        here, before its first record: else a crash between the two would look like a file that was removed. Raises
        `StoreError`."""
        head = read_head(self._paths)

        def work(db: sqlite3.Connection) -> tuple[Head | None, bool]:
            last, begun = db.execute(LAST).fetchone(), start(db)
            self._head = Head(1, *last) if last else None
            wrong, how = end_wrong(db, last[0] if last else 0, head, begun)
            if wrong is None:
                return None, last is None and head is None
            self._keep(db, wrong, how)
            return (head if how == "cut" else None), False

        self._goes_on, first = await self._store.transact(work)
        if first:
            try:
                await asyncio.to_thread(write_head, self._paths, NOTHING)
            except OSError as error:
                what = "the audit trail cannot be begun: audit.head cannot be written"
                lacking = fulldisk.lacks(self._paths.state) if fulldisk.is_full(error) else ""
                raise (StoreError(what, lacking) if lacking else store_error(error, what)) from error

    def _committed(self, record: AuditRecord) -> None:
        """In the writer's thread, after the COMMIT: the head outside can only ever be behind."""
        head = Head(1, record.seq, record.hash)
        self._put_head(head)
        if head in self._written:
            del self._written[: self._written.index(head) + 1]
        if record.verb == ACCEPT and record.outcome == "done":
            try:
                write_accepted(self._paths, Accepted(1, head.seq, head.hash))
            except OSError as error:
                log.error("audit.accepted could not be written, so that nothing is accepted: %s", error)
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
            if self._head is not None:
                head = self._head
                self._store.on_commit(lambda: self._put_head(head))

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
        for op, asked in ((">=", since), ("<=", until)):
            if asked:
                where.append(f"time {op} ?")
                values.append(moment(asked))
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

    async def find(
        self, text: str = "", *, before_seq: int | None = None, after_seq: int | None = None, limit: int = 100
    ) -> AuditPage:
        """Records that fit what somebody typed (core.audit.search): the newest below `before_seq`, or the oldest above
        `after_seq`. Raises `Invalid`."""
        asked = wanted(text, moment)
        found = await self._store.read(
            lambda db: search.find(db, asked, before=before_seq, after=after_seq, limit=limit)
        )
        return AuditPage(
            records=tuple(map(to_record, found.rows)), searched=found.searched, more=found.more, first=found.first,
            last=found.last,
        )  # fmt: skip

    async def verify(self, watch: Watch | None = None) -> ChainReport:
        """Walk the whole chain and compare its end with the head outside the database: with the one in memory while
        audit.head cannot be written. `watch` is called in another thread; cancelled, the walk ends soon after."""
        started, gone = time.monotonic(), threading.Event()

        def look(done: int, of: int) -> None:
            if gone.is_set():
                raise Failed("the verification was ended", "nobody waits for it any more")
            if watch is not None:
                watch(done, of)
            time.sleep(YIELD_S)

        try:
            report = await asyncio.to_thread(verify_file, self._paths, self._head if self._behind else None, look)
        except asyncio.CancelledError:
            gone.set()
            raise
        report = msgspec.structs.replace(report, seconds=round(time.monotonic() - started, 3))
        self._told(report)
        return report

    def _told(self, report: ChainReport) -> None:
        # Records that were committed meanwhile stay counted.
        if report.ok and self.status.records > report.records:
            self.status = msgspec.structs.replace(report, records=self.status.records, head=self.status.head)
        else:
            self.status = report

    async def acceptance(
        self, reason: str, shown: Sequence[ChainFault]
    ) -> Callable[[sqlite3.Connection], tuple[None, Any, Any]]:
        """What accepts the faults that are there: the change of an act `audit.accept`, with its before and after.

        `shown` is what the person saw. The act is refused with `Invalid` without a reason, with `Conflict` if nothing
        is wrong, or something else than was shown.
        """
        seen = await asyncio.to_thread(examine, self._paths, self._head if self._behind else None)
        self._told(seen.report)

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            if not reason.strip() or len(reason) > REASON_LIMIT:
                raise Invalid("a reason is needed", f"one of 1 to {REASON_LIMIT} characters", "say --reason TEXT")
            faults = seen.report.faults
            if not faults:
                raise Conflict("there is nothing to accept", "the chain is whole")
            if [(fault.wrong, fault.how) for fault in faults] != [(fault.wrong, fault.how) for fault in shown]:
                raise Conflict("something else is wrong than was shown", seen.report.message, LOOK)
            return None, {"faults": faults}, self._accept(db, seen)

        return work

    def _accept(self, db: sqlite3.Connection, seen: Examined) -> dict[str, Any]:
        """Take what came since into the state, and put the triggers back. Raises `Conflict` if anybody but this daemon
        wrote meanwhile."""
        foreign = self._foreign(db, db.execute(LAST).fetchone())
        if foreign is not None and foreign not in [(fault.wrong, fault.how) for fault in seen.report.faults]:
            raise Conflict("the chain was changed meanwhile", said(*foreign), LOOK)
        state = seen.state.copy()
        since = db.execute(SELECT + " WHERE seq > ? ORDER BY seq", (seen.last,)).fetchall()
        before = db.execute("SELECT hash FROM audit WHERE seq = ?", (seen.last,)).fetchone() or ("",)
        for row in since:
            if row[13] != before[0] or digest(row) != row[14]:
                raise Conflict("the chain was changed meanwhile", f"record {row[0]} is new and does not follow", LOOK)
            before = (row[14],)
        state.add(since)
        return {"state": state.hex(), "triggers": put_back_triggers(db), "checkpoint": seen.number}


def to_record(row: tuple[Any, ...]) -> AuditRecord:
    """The noun of a row (COLUMNS in order)."""
    fields = dict(zip(COLUMNS, row, strict=True))
    fields["before"] = json.loads(fields["before"])
    fields["after"] = json.loads(fields["after"])
    return AuditRecord(**fields)


def moment(text: str) -> str:
    """A time as the column has it. Raises `Invalid`."""
    try:
        try:
            when = datetime.fromtimestamp(float(text), UTC)
        except ValueError:
            when = datetime.fromisoformat(text)
            when = when.astimezone(UTC) if when.tzinfo else when.replace(tzinfo=UTC)
    except (ValueError, OverflowError, OSError):
        raise Invalid(f"{text!r} is no time", "it is ISO 8601 or seconds since the epoch") from None
    return when.isoformat(timespec="microseconds").replace("+00:00", "Z")
