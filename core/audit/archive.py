"""Takes old records out of the database into a signed file, and leaves a seal in their place: the chain is never torn.

The file is whole and verified before the seal is committed; from then on the records are only removed, in small steps.
Who dies before the commit leaves the old state (the next start removes what was written), who dies after it the new one
(the next start removes the rest of the records).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.audit import archivefile, seals
from core.audit.export import Exporter
from core.audit.log import Audit
from core.audit.outside import read_accepted
from core.audit.seals import ARCHIVE, archives_in, newest, sealed_in
from core.audit.signer import Signer
from core.audit.span import Span, plan
from core.audit.verify import Watch
from core.audit.vouched import outside_of
from core.errors import Conflict, CorralError, Failed, Invalid
from core.nouns import CORRAL, Actor, AuditArchive, AuditArchives, AuditPlan, AuditRecord, ChainFault
from core.paths import Paths
from core.proof.statements import Seal
from core.proof.verify import Verified, lines_of, verify
from core.settings import AuditTable
from core.store import Store

log = logging.getLogger(__name__)

CHAIN = "audit:chain"
EACH = 250
"""Records that are removed in one transaction: some 10 ms, which others wait."""
RECENT_S = 86400.0
"""Records that are younger are archived only by who says so."""
SWEEP_S = 3600.0
SPAN_DAYS = 7
"""By itself the daemon archives only when so many days are due: not a file each hour."""


class Archiver:
    """One a daemon. `sent` is the last record that every sink has; None where there are no sinks."""

    def __init__(
        self, store: Store, audit: Audit, signer: Signer, exporter: Exporter, paths: Paths,
        settings: Callable[[], AuditTable], sent: Callable[[], int | None], *, clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._audit, self._signer, self._exporter = store, audit, signer, exporter
        self._paths, self._settings, self._sent, self._clock = paths, settings, sent, clock
        self._lock = asyncio.Lock()
        self.working = ""

    async def archives(self) -> AuditArchives:
        """All of them, and what is being done now. Raises `StoreError`."""
        return AuditArchives(archives=tuple(await self._store.read(archives_in)), working=self.working)

    # ---------------------------------------------------------------------------------------- make one

    async def archive(
        self, before: str, actor: Actor, request: str, *, folder: Path | None = None,
        permitted: Callable[[], None] = lambda: None, reason: str = "", recent: bool = False,
    ) -> AuditArchive:  # fmt: skip
        """Archive the records whose time is below `before` (as the trail writes it), up to the last checkpoint among
        them, to `folder` (None: the one of corral.toml, else Corral's own). `permitted` raises in each transaction if
        `actor` may not. `recent`: also records of the last day. Raises `CorralError`; then nothing has changed."""
        if self._lock.locked():
            raise Conflict("another archive is being made", self.working, "wait until it is done")
        async with self._lock:
            try:
                return await self._archive(await self.span(before, recent), actor, request, folder, permitted, reason)
            finally:
                self.working = ""

    async def _archive(
        self, span: Span, actor: Actor, request: str, folder: Path | None, permitted: Callable[[], None], reason: str
    ) -> AuditArchive:
        place = await asyncio.to_thread(self._folder, folder)
        file = self._file(place, span)
        if os.path.lexists(file):
            raise Conflict(
                f"{file} is there already", "nothing was overwritten", "move it away, or name another folder"
            )
        effect = secrets.token_hex(6)

        def record(db: sqlite3.Connection, outcome: str, after: object, why: str) -> AuditRecord:
            permitted()
            return self._audit.append(
                db, actor=actor, verb=ARCHIVE, object=CHAIN, request=request, effect=effect, outcome=outcome,  # type: ignore[arg-type]
                after=after, reason=why,
            )  # fmt: skip

        planned = {"first": span.first, "last": span.last, "file": str(file)}
        await self._store.transact(lambda db: record(db, "intent", planned, reason))
        try:
            digest, size, faults = await self._write(span, file)
            seal = await self._seal(span, digest)
            told = {**planned, "bytes": size, "seal": seal.line().decode(), "faults": faults}

            def work(db: sqlite3.Connection) -> None:
                sql = "INSERT INTO audit_seals (number, last, file, bytes, line) VALUES (?, ?, ?, ?, ?)"
                db.execute(sql, (seal.number, seal.last, str(file), size, seal.line().decode()))
                record(db, "done", told, reason)

            await self._store.transact(work)
        except BaseException as error:
            if not await asyncio.shield(self._store.read(lambda db: sealed_in(db).last >= span.last)):
                await asyncio.shield(asyncio.to_thread(archivefile.forget, file))
                with contextlib.suppress(CorralError):  # else the next start records that it was interrupted
                    await asyncio.shield(self._failed(actor, request, effect, planned, error))
            raise
        with contextlib.suppress(CorralError):  # the next one vouches for it
            await self._signer.checkpoint()
        await self._prune()
        return next(each for each in (await self.archives()).archives if each.number == seal.number)

    async def plan(self, before: str, folder: Path | None = None, *, recent: bool = False) -> AuditPlan:
        """What `archive` would do. Raises `Invalid` and `Conflict` with the reason if that is nothing."""
        span = await self.span(before, recent)
        last = self._audit.head.seq if self._audit.head else span.last
        return AuditPlan(
            first=span.first, last=span.last, began=span.began, ended=span.ended, checkpoint=span.checkpoint,
            file=str(self._file(folder or self._place(), span)), stays=max(0, last - span.last),
        )  # fmt: skip

    async def span(self, before: str, recent: bool = False) -> Span:
        """The records that would go. Raises `Invalid` and `Conflict` with the reason if there are none."""
        now = datetime.fromtimestamp(self._clock(), UTC)
        if before > _written(now):
            raise Invalid("nothing is archived", f"{before} is not over yet", "name a time that is past")
        if before > _written(now - timedelta(seconds=RECENT_S)) and not recent:
            raise Conflict(
                "nothing is archived", "records of the last day stay, as they are what one looks for first",
                "name a time that is a day past, or say --recent",
            )  # fmt: skip
        sent, outside = self._sent(), await asyncio.to_thread(outside_of, self._paths)
        accepted = read_accepted(self._paths)
        database = self._store.database_id
        return await self._store.read(lambda db: plan(db, before, sent, outside, accepted, database))

    def _place(self) -> Path:
        """Where files go if nobody names a folder."""
        table = self._settings()
        return Path(table.archive_folder) if table.archive_folder else self._paths.audit_archive

    def _file(self, place: Path, span: Span) -> Path:
        return place / f"trail-{self._store.database_id}-{span.first}-{span.last}.corral"

    def _folder(self, named: Path | None) -> Path:
        """Where the file goes. Raises `Failed`."""
        place = named or self._place()
        try:
            if place == self._paths.audit_archive:
                place.mkdir(mode=0o700, exist_ok=True)
            if not place.is_absolute() or not place.is_dir():
                raise NotADirectoryError(None, "it is no folder that there is, written from / on")
        except OSError as error:
            raise Failed(
                f"nothing can be archived to {place}", error.strerror or str(error), "name another folder"
            ) from error
        return place

    async def _write(self, span: Span, file: Path) -> tuple[str, int, list[str]]:
        """Write, flush, verify, and give it its name: (digest, bytes, faults that were accepted). Raises `Failed`."""
        part = archivefile.part_of(file)
        sha, size, lines = hashlib.sha256(), 0, 0
        try:
            out = await asyncio.to_thread(archivefile.create, part)
            try:
                pieces = self._exporter.between(span.first, span.last)
                async with contextlib.aclosing(pieces):  # type: ignore[type-var]
                    async for piece in pieces:
                        await asyncio.to_thread(out.write, piece)
                        sha.update(piece)
                        size, lines = size + len(piece), lines + piece.count(b"\n")
                        self.working = f"{min(lines, span.last)} of {span.last - span.first + 1} records are written"
                await asyncio.to_thread(archivefile.flush, out)
            finally:
                await asyncio.to_thread(out.close)
            self.working = "the file is verified"
            faults = await self._verified(span, part)
            await asyncio.to_thread(archivefile.name, part, file)
        except OSError as error:
            raise Failed(
                f"{file} could not be written", error.strerror or str(error), "nothing was archived"
            ) from error
        return sha.hexdigest(), size, faults

    async def _verified(self, span: Span, part: Path) -> list[str]:
        """Look at the file as somebody elsewhere would; faults that a person accepted are named, others refuse it. A
        gap in the numbers of checkpoints is named too: nothing can mend it, and the chain here may be whole."""
        public = [each.key for each in self._signer.keys]

        def look() -> Verified:
            with part.open("rb") as file:
                return verify(lines_of(file), public)[0]

        found = (await asyncio.to_thread(look)).report
        faults = [fault.message for fault in found.faults]
        accepted = read_accepted(self._paths)
        grave = [fault for fault in found.faults if fault.how != "gap"]
        if grave and not (accepted is not None and span.first <= accepted.seq <= span.last and self._audit.status.ok):
            raise Failed(
                "nothing is archived: these records do not verify", grave[0].message, "see `corral audit verify`"
            )
        if not faults and (found.first, found.last, found.head) != (span.first, span.last, span.hash):
            raise Failed("nothing is archived", "the file has other records than it should", "try again")
        return faults

    async def _seal(self, span: Span, digest: str) -> Seal:
        before = await self._store.read(newest)
        blank = Seal(
            self._signer.installation, self._store.database_id, before.number + 1 if before else 1, span.first,
            span.last, span.hash, span.checkpoint, span.began, span.ended, digest, self._moment(), "", "",
        )  # fmt: skip
        seal: Seal = await self._signer.sign_with(blank)
        if not seal.key:
            raise Failed("nothing is archived", "the trail is not signed", "see `corral audit key show`")
        return seal

    async def _failed(self, actor: Actor, request: str, effect: str, after: object, error: BaseException) -> None:
        await self._store.transact(
            lambda db: self._audit.append(
                db, actor=actor, verb=ARCHIVE, object=CHAIN, request=request, effect=effect, outcome="failed",
                after=after, reason=str(error) or type(error).__name__,
            )
        )  # fmt: skip

    def _moment(self) -> str:
        return _written(datetime.fromtimestamp(self._clock(), UTC))

    # ---------------------------------------------------------------------------------------- what is left to do

    async def tidy(self) -> None:
        """Before a daemon records its start: what one before it wrote for an archive that was never sealed is removed.
        Raises `StoreError`."""

        def left(db: sqlite3.Connection) -> list[str]:
            rows = db.execute(
                "SELECT json_extract(a.after, '$.file') FROM audit a WHERE a.verb = ? AND a.outcome = 'intent'"
                " AND NOT EXISTS (SELECT 1 FROM audit b WHERE b.effect = a.effect AND b.seq > a.seq)", (ARCHIVE,)
            )  # fmt: skip
            return [str(row[0]) for row in rows if row[0]]

        for name in await self._store.read(left):
            log.warning("an archive was never sealed: %s is removed, and its records are all here", name)
            await asyncio.to_thread(archivefile.forget, Path(name))

    async def _prune(self) -> None:
        """Remove the records that a seal covers, and give their space back. Raises `StoreError`."""
        outside = await asyncio.to_thread(outside_of, self._paths)
        sealed = (await self._store.read(lambda db: seals.check(db, outside)))[0]
        if not sealed.last:
            return
        sql = "DELETE FROM audit WHERE seq IN (SELECT seq FROM audit WHERE seq <= ? ORDER BY seq LIMIT ?)"
        gone = 0
        while count := await self._store.transact(lambda db: db.execute(sql, (sealed.last, EACH)).rowcount):
            gone += count
            self.working = f"{gone} records are removed from the database"
            await asyncio.sleep(0)
        if gone:
            self.working = "their space is given back"
            await self._store.give_back()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Finish what was left half done, then archive what is over `archive_after_days`, each hour."""
        while True:
            try:
                async with self._lock:
                    try:
                        await self._prune()
                    finally:
                        self.working = ""
                await self.sweep()
            except CorralError as error:
                log.error("the audit trail could not be archived: %s", error)
            await pause(SWEEP_S)

    async def sweep(self) -> AuditArchive | None:
        """Archive what is over now, if enough of it is. Raises `CorralError`."""
        days = self._settings().archive_after_days
        if not days:
            return None
        now = datetime.fromtimestamp(self._clock(), UTC)
        oldest = await self._store.read(lambda db: db.execute("SELECT time FROM audit ORDER BY seq LIMIT 1").fetchone())
        due = _written(now - timedelta(days=days + SPAN_DAYS))
        if oldest is None or oldest[0] >= due:
            return None
        before = _written(now - timedelta(days=days))
        try:
            return await self.archive(before, CORRAL, "archive", reason=f"archive_after_days is {days}")
        except Conflict as error:
            log.info("%s", error)
            return None

    # ---------------------------------------------------------------------------------------- verify them

    async def faults(self, watch: Watch | None = None) -> list[ChainFault]:
        """What is wrong with the files: each is read whole and compared with its seal, and the chain goes on from one
        to the next. Raises `StoreError`."""
        found = await self.archives()
        public = [each.key for each in self._signer.keys]
        return await asyncio.to_thread(archivefile.faults, found.archives, public, watch)


def _written(time: datetime) -> str:
    """As the trail has it."""
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
