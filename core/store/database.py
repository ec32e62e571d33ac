"""One SQLite file behind two aiosqlite connections: a writer whose transactions are single functions, a reader."""

from __future__ import annotations

import asyncio
import errno
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import aiosqlite

from core import fulldisk
from core.paths import Paths
from core.store import copies, migrate
from core.store.ballast import Ballast
from core.store.check import check
from core.store.faults import is_full, may_be_quota, store_error, unsure

log = logging.getLogger(__name__)
T = TypeVar("T")

PACKAGES = (
    "core.store", "core.audit", "core.catalog", "core.deployments", "core.chats", "core.telemetry", "core.access",
    "core.nodes",
)  # fmt: skip
WAIT_MS = 10_000
"""How long a statement waits for a lock of somebody else (a person's own sqlite3) before it fails."""
PRUNE_EVERY_S = 86400.0
INCREMENTAL = 2
"""What SQLite calls a database that gives pages back when it is asked to."""
REWRITTEN = 64 << 20
"""Bytes of content up to which a database is written anew: half a second, and as much memory."""
PAGES = 256
"""Pages that are given back at once."""
SMALL, LARGE = 32 << 20, 1 << 30
"""Bytes of a database that is written anew after each deletion, and of one that is so once a day at most."""


class _Connection(aiosqlite.Connection):
    """aiosqlite's worker thread, lent to one synchronous function at a time.

    `_execute`, `_conn` and `_thread` are private to aiosqlite; this class is the only place that knows them. A
    transaction of single awaits can be cancelled near COMMIT and has been seen both cancelled and committed; one
    function can't.
    """

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._execute(lambda: fn(self._conn))  # type: ignore[no-any-return,no-untyped-call]

    async def begin(self) -> None:
        """Connect. If that fails, wait until the thread has ended: it would answer a loop that is closed."""
        try:
            await self
        except BaseException:
            await asyncio.to_thread(self._thread.join)
            raise


async def _connect(path: Path, *, readonly: bool) -> _Connection:
    def connector() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=WAIT_MS / 1000, check_same_thread=False)
        try:
            if readonly:
                db.execute("PRAGMA query_only=ON")
            else:
                path.chmod(0o600)
                db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a new database; before anything is in it
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
                db.execute("PRAGMA secure_delete=ON")
            db.execute("PRAGMA foreign_keys=ON")
            # Else pages of what is deleted would go to a file in /tmp, which is read-only under the hardened unit.
            db.execute("PRAGMA temp_store=MEMORY")
        except BaseException:
            db.close()
            raise
        return db

    connection = _Connection(connector, iter_chunk_size=64)
    await connection.begin()
    return connection


class Store:
    """The database. `transact` and `read` take one synchronous function each."""

    def __init__(
        self, paths: Paths, writer: _Connection, reader: _Connection, clock: Callable[[], float], ballast: Ballast
    ) -> None:
        self._paths = paths
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._after: list[Callable[[], None]] = []
        self._queue = asyncio.Lock()
        self.database_id = ""
        self.warnings: list[str] = []
        self._ballast = ballast
        self._pruned = clock()
        self._uncut = False
        self._untidy = self._owed = False
        """Something was deleted since the file was written anew; and that has not come in time."""
        self._tidied = -PRUNE_EVERY_S
        self._erasing = asyncio.Lock()

    # ---------------------------------------------------------------------------------------- open

    @classmethod
    async def open(
        cls, paths: Paths, *, packages: Sequence[str] = PACKAGES, clock: Callable[[], float] = time.time
    ) -> Store:
        """Check, set aside what is corrupt, migrate. Raises `StoreError` with what to do."""
        known = migrate.find(packages)
        ballast = Ballast(paths.ballast)
        try:
            try:
                store = await cls._open(paths, known, clock, ballast)
            except (sqlite3.Error, OSError) as error:
                number = await asyncio.to_thread(_full, ballast, error)
                if not number or not await asyncio.to_thread(ballast.drop, number):
                    raise
                store = await cls._open(paths, known, clock, ballast)
        except (sqlite3.Error, OSError) as error:
            number = await asyncio.to_thread(_full, ballast, error)
            raise store_error(error, f"{paths.database} cannot be opened", number=number) from error
        await asyncio.to_thread(ballast.load)
        await asyncio.to_thread(copies.prune, paths.backups, clock())
        return store

    @classmethod
    async def _open(
        cls, paths: Paths, known: Sequence[migrate.Migration], clock: Callable[[], float], ballast: Ballast
    ) -> Store:
        warnings = await asyncio.to_thread(check, paths, known, clock())
        writer = await _connect(paths.database, readonly=False)
        try:
            await writer.run(lambda db: migrate.migrate(db, known, clock()))
            database_id = await writer.run(_identify)
            await writer.run(_cut)  # a deletion right before a crash is in no file either
            reader = await _connect(paths.database, readonly=True)
        except BaseException:
            await writer.close()
            raise
        store = cls(paths, writer, reader, clock, ballast)
        store.database_id = database_id
        store.warnings = warnings
        return store

    async def close(self) -> None:
        """Wait for the running transaction and close."""
        async with self._queue:
            await self._reader.close()
            await self._writer.close()

    # ---------------------------------------------------------------------------------------- use

    async def transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` in one transaction, in the writer's thread; commit, or roll back wholly if it raises.

        Cancelling the caller does not stop it halfway. Raises `StoreError` on a full disk or an I/O error.
        """
        return await asyncio.shield(self._transact(fn))

    async def _transact(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        async with self._queue:
            try:
                return await self._writer.run(lambda db: self._once(db, fn))
            except sqlite3.Error as error:
                number = await asyncio.to_thread(_full, self._ballast, error)
                if not number or not await asyncio.to_thread(self._ballast.drop, number):
                    raise store_error(error, number=number) from error
            try:
                return await self._writer.run(lambda db: self._once(db, fn))
            except sqlite3.Error as error:
                raise store_error(error, number=await asyncio.to_thread(_full, self._ballast, error)) from error

    def _once(self, db: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
        self._after.clear()
        migrate.roll_back(db)  # what a failing disk may have left open
        db.execute("BEGIN IMMEDIATE")
        try:
            result = fn(db)
        except BaseException:
            migrate.roll_back(db)
            raise
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            migrate.roll_back(db)
            if _full(self._ballast, error):
                raise
            raise unsure(error) from error
        for after in self._after:
            try:
                after()
            except Exception:  # the change is committed: nothing after it may make it look failed
                log.exception("after a commit")
        return result

    def on_commit(self, fn: Callable[[], None]) -> None:
        """Inside `transact`'s function: run `fn` in the writer's thread right after the COMMIT."""
        self._after.append(fn)

    async def read(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        """Run `fn` on the reading connection, in its own thread."""
        try:
            return await self._reader.run(fn)
        except sqlite3.Error as error:
            raise store_error(error, "the database was not read") from error

    # ---------------------------------------------------------------------------------------- for good

    async def erase(self, fn: Callable[[sqlite3.Connection], object]) -> None:
        """Let a deletion that is committed reach every file: `fn` runs on each copy from before a migration, which is
        then written anew. So is the database, at once if it is small, else by `tidy`."""
        async with self._erasing:
            await asyncio.to_thread(copies.erase, self._paths.backups, fn, self._paths.state)
        self._untidy = True
        if self.bytes <= SMALL:
            await self.tidy()
        else:
            self._owed = True
            await self.cut_log()

    async def tidy(self) -> None:
        """Write the database anew if something was deleted since the last time: secure_delete overwrites what is
        deleted, and yet pages whose rows were moved keep pieces of them in their gaps (seen with SQLite 3.40). Nobody
        writes meanwhile, some 2 s for 500 MB, so that one over 1 GiB has it once a day. A disk that is too full for it
        is told in the log."""
        now = time.monotonic()
        if not self._untidy or (self.bytes >= LARGE and now - self._tidied < PRUNE_EVERY_S):
            return
        self._tidied = now
        async with self._queue:
            if not self._untidy:
                return  # somebody else did it while this one waited
            try:
                await self._writer.run(lambda db: copies.rewrite(db, self._paths.state))
                self._untidy = self._owed = False
            except sqlite3.Error as error:
                if not self._owed:
                    log.error("the database was not written anew, so that it may hold what was deleted: %s", error)
                self._owed = True
        await self.cut_log()

    async def scrub(self, secrets: Sequence[bytes]) -> None:
        """Overwrite these bytes wherever they stand in a database that was corrupt and is set aside."""
        await asyncio.to_thread(copies.scrub, self._paths.state, secrets)

    def set_aside(self) -> list[Path]:
        """Files that are left of databases that were corrupt."""
        return copies.set_aside(self._paths.state)

    def remove(self, files: Sequence[Path]) -> None:
        """Remove some of them. Blocks."""
        for file in files:
            copies.remove(file)

    @property
    def bytes(self) -> int:
        """How large the file is."""
        try:
            return self._paths.database.stat().st_size
        except OSError:
            return 0

    async def cut_log(self) -> bool:
        """Write the write-ahead log back and cut it, so that what was deleted is in no file.

        False while a reader (a long verification) still needs it: `recover` tries again until it is cut.
        """
        self._uncut = True
        async with self._queue:
            try:
                self._uncut = not await self._writer.run(_cut)
            except sqlite3.Error as error:
                log.error("the write-ahead log could not be cut and will be tried again: %s", error)
        return not self._uncut

    async def give_back(self) -> bool:
        """Give pages that nothing uses any more to the file system, a few at a time, as others wait.

        A database that was made before it could do so is written anew once, if little is left in it, else False. Raises
        `StoreError`.
        """
        if await self.read(lambda db: db.execute("PRAGMA auto_vacuum").fetchone()[0]) != INCREMENTAL:
            if await self.read(_used) > REWRITTEN:
                log.info("an older program made the database: what is freed in it is used again, and not given back")
                return False
            async with self._queue:
                try:
                    await asyncio.shield(self._writer.run(_rewrite))
                except sqlite3.Error as error:
                    raise store_error(error, "the space of what was removed was not given back") from error
        while await self.read(lambda db: db.execute("PRAGMA freelist_count").fetchone()[0]):
            await self.transact(lambda db: db.execute(f"PRAGMA incremental_vacuum({PAGES})").fetchall())
            await asyncio.sleep(0)
        await self.cut_log()
        return True

    # ---------------------------------------------------------------------------------------- from time to time

    @property
    def low(self) -> bool:
        """The disk is full and the ballast given up; nothing may be started until there is room again."""
        return self._ballast.low

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        told = []
        if self.low:
            full = "the disk with the database is nearly full"
            if self._ballast.number != errno.ENOSPC:
                full = fulldisk.why(self._ballast.number, "the disk with the database")
            told.append(f"{full}: nothing is started until there is room")
        if self._owed:
            told.append("what was deleted last may still be in gaps of the database until it is written anew")
        if self._uncut:
            told.append("what was deleted last may still be in the write-ahead log: it could not be cut yet")
        return told

    async def recover(self) -> None:
        """Called every few seconds: the ballast is made again when there is room, a log that was busy is cut, a small
        database that could not be written anew is, and once a day old copies are removed."""
        if self.low:
            await asyncio.to_thread(self._ballast.load)
        if self._uncut:
            await self.cut_log()
        if self._owed and self.bytes <= SMALL and not self.low:
            await self.tidy()
        now = self._clock()
        if abs(now - self._pruned) > PRUNE_EVERY_S:  # abs: a clock that was set back must not end it
            self._pruned = now
            await asyncio.to_thread(copies.prune, self._paths.backups, now)


def _full(ballast: Ballast, error: sqlite3.Error | OSError) -> int:
    """The errno that says how the disk is full, if it is that; else 0. Blocks."""
    if isinstance(error, OSError):
        return error.errno or 0 if is_full(error) else 0
    return (may_be_quota(error) and ballast.full()) or (errno.ENOSPC if is_full(error) else 0)


def _cut(db: sqlite3.Connection) -> bool:
    """One try without waiting for readers: the writer must not stand still for them."""
    db.execute("PRAGMA busy_timeout=0")
    try:
        (busy, _, _) = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    finally:
        db.execute(f"PRAGMA busy_timeout={WAIT_MS}")
    return not busy


def _used(db: sqlite3.Connection) -> int:
    """Bytes of the pages that hold something."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, size = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)
    return int((pages - free) * size)


def _rewrite(db: sqlite3.Connection) -> None:
    """Make of it a database that gives pages back; its free ones are gone with that."""
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")
    db.execute("VACUUM")


def _identify(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
    if row is not None:
        return str(row[0])
    new = secrets.token_hex(8)
    db.execute("INSERT INTO meta (key, value) VALUES ('id', ?)", (new,))
    return new
