"""One SQLite file behind two aiosqlite connections: a writer whose transactions are single functions, a reader."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote

import aiosqlite

from core.errors import CorralError, StoreError
from core.settings import Paths
from core.store import migrate

log = logging.getLogger(__name__)
T = TypeVar("T")

PACKAGES = ("core.store", "core.audit", "core.catalog", "core.deployments", "core.chats", "core.telemetry")
BALLAST = 8 << 20
"""Bytes given up on a full disk, so that stops, deaths and refusals can still be recorded."""
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "lustre", "gpfs", "beegfs")


class _Connection(aiosqlite.Connection):
    """aiosqlite's worker thread, lent to one synchronous function at a time.

    `_execute` and `_conn` are private to aiosqlite; this class is the only place that knows them. A transaction
    of single awaits can be cancelled near COMMIT and has been seen both cancelled and committed; one function can't.
    """

    async def run(self, fn: Callable[[sqlite3.Connection], T]) -> T:
        return await self._execute(lambda: fn(self._conn))  # type: ignore[no-any-return,no-untyped-call]


async def _connect(path: Path, *, readonly: bool) -> _Connection:
    def connector() -> sqlite3.Connection:
        db = sqlite3.connect(path, isolation_level=None, timeout=10, check_same_thread=False)
        if readonly:
            db.execute("PRAGMA query_only=ON")
        else:
            path.chmod(0o600)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            db.execute("PRAGMA secure_delete=ON")
        db.execute("PRAGMA foreign_keys=ON")
        return db

    connection = _Connection(connector, iter_chunk_size=64)
    await connection
    return connection


class Store:
    """The database. `transact` and `read` take one synchronous function each."""

    def __init__(self, paths: Paths, writer: _Connection, reader: _Connection, clock: Callable[[], float]) -> None:
        self._paths = paths
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._after: list[Callable[[], None]] = []
        self._queue = asyncio.Lock()
        self.database_id = ""
        self.warnings: list[str] = []
        self.low = False
        """The disk is full: the ballast is given up; nothing may be started until there is room again."""

    # ---------------------------------------------------------------------------------------- open

    @classmethod
    async def open(
        cls, paths: Paths, *, packages: Sequence[str] = PACKAGES, clock: Callable[[], float] = time.time
    ) -> Store:
        """Check, set aside what is corrupt, migrate. Raises `StoreError` with what to do."""
        refuse_network(paths.database)
        known = migrate.find(packages)
        warnings: list[str] = []
        await asyncio.to_thread(_check, paths, known, clock(), warnings)
        writer = await _connect(paths.database, readonly=False)
        try:
            await writer.run(lambda db: migrate.migrate(db, known, clock()))
            database_id = await writer.run(_identify)
            reader = await _connect(paths.database, readonly=True)
        except BaseException:
            await writer.close()
            raise
        store = cls(paths, writer, reader, clock)
        store.database_id = database_id
        store.warnings = warnings
        await asyncio.to_thread(store._load_ballast)
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
            except sqlite3.OperationalError as error:
                if not _is_full(error):
                    raise _store_error(error) from error
                if not await asyncio.to_thread(self._drop_ballast):
                    raise _store_error(error) from error
            except sqlite3.Error as error:
                raise _store_error(error) from error
            try:
                return await self._writer.run(lambda db: self._once(db, fn))
            except sqlite3.Error as error:
                raise _store_error(error) from error

    def _once(self, db: sqlite3.Connection, fn: Callable[[sqlite3.Connection], T]) -> T:
        self._after.clear()
        db.execute("BEGIN IMMEDIATE")
        try:
            result = fn(db)
            db.execute("COMMIT")
        except BaseException:
            self._after.clear()
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
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
            raise _store_error(error) from error

    async def cut_log(self) -> None:
        """Write the write-ahead log back and cut it, so that what was deleted is in no file."""
        async with self._queue:
            await self._writer.run(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())

    # ---------------------------------------------------------------------------------------- full disk

    def _load_ballast(self) -> None:
        path = self._paths.ballast
        try:
            if path.exists() and path.stat().st_size == BALLAST:
                self.low = False
                return
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST)
            finally:
                os.close(fd)
            self.low = False
        except OSError as error:
            path.unlink(missing_ok=True)
            self.low = True
            log.error("no room for the ballast: %s", error)

    def _drop_ballast(self) -> bool:
        """Give the ballast up; False if it was gone already."""
        self.low = True
        try:
            self._paths.ballast.unlink()
        except OSError:
            return False
        log.error("the disk is full: the ballast of %d MiB is given up", BALLAST >> 20)
        return True

    async def recover(self) -> None:
        """Make the ballast again when there is room; called from time to time while `low`."""
        if self.low:
            await asyncio.to_thread(self._load_ballast)


def _identify(db: sqlite3.Connection) -> str:
    row = db.execute("SELECT value FROM meta WHERE key = 'id'").fetchone()
    if row is not None:
        return str(row[0])
    new = secrets.token_hex(8)
    db.execute("INSERT INTO meta (key, value) VALUES ('id', ?)", (new,))
    return new


def _is_full(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL or "disk is full" in str(error)


def _store_error(error: sqlite3.Error) -> CorralError:
    if _is_full(error):
        return StoreError("the change was not made", "the disk with the database is full", "make room and try again")
    return StoreError("the change was not made", f"the database says: {error}", "look at the daemon's log and the disk")


def refuse_network(path: Path, mountinfo: Path = Path("/proc/self/mountinfo")) -> None:
    """Raises `StoreError` if `path` lies on a network file system, where SQLite's WAL loses data."""
    try:
        lines = mountinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return
    best, kind = "", ""
    for line in lines:
        left, _, right = line.partition(" - ")
        mount = left.split()[4].replace("\\040", " ")
        inside = str(path) == mount or str(path).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, right.split()[0]
    if kind in NETWORK:
        raise StoreError(
            f"the database would lie on a network file system ({kind} at {best})",
            "SQLite's write-ahead log is not safe there",
            "set CORRAL_HOME to a folder on a local disk",
        )


def _check(paths: Paths, known: Sequence[tuple[int, str, str]], now: float, warnings: list[str]) -> None:
    """Integrity and version of the file that is there; a corrupt one is set aside, a copy made before migrating."""
    path = paths.database
    if not path.exists():
        return
    try:
        # Read-only, so that closing it does not fold the log of a corrupt file into it.
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, isolation_level=None, timeout=10)
        try:
            verdict = db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
            migrate.check_not_newer(db, known)
            had = migrate.applied(db)
            if had and {number for number, _, _ in known} - had:
                migrate.copy_aside(db, paths.backups, now)
        finally:
            db.close()
    except sqlite3.OperationalError as error:
        raise StoreError(
            f"{path} cannot be opened", str(error), "mend its mode, or the disk (read-only? full?)"
        ) from error
    except sqlite3.DatabaseError as error:
        aside = path.with_name(time.strftime("corral.db.corrupt-%Y%m%dT%H%M%S", time.gmtime(now)))
        while aside.exists():
            aside = aside.with_name(aside.name + "+")
        for suffix in ("", "-wal", "-shm"):
            file = path.with_name(path.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
        text = f"the database was corrupt ({error}) and is set aside as {aside.name}; a new one was begun"
        log.error(text)
        warnings.append(text)
