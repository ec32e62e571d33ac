"""Copies of the database from before a migration: made whole or not at all, kept 7 days, reached by deletions."""

from __future__ import annotations

import logging
import mmap
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import UTC, datetime
from pathlib import Path

log = logging.getLogger(__name__)

KEEP_S = 7 * 86400
_NAME = "corral-%Y%m%dT%H%M%S.db"


def make(db: sqlite3.Connection, folder: Path, now: float) -> Path:
    """Copy the database; the copy has its name only when it is complete. Raises `sqlite3.Error` and `OSError`."""
    folder.mkdir(mode=0o700, exist_ok=True)
    target = folder / time.strftime(_NAME, time.gmtime(now))
    part = folder / (target.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(part)) as copy:
            part.chmod(0o600)
            db.backup(copy)
        flush(part)
    except BaseException:
        remove(part)
        raise
    part.rename(target)
    flush(folder)
    return target


def prune(folder: Path, now: float) -> None:
    """Remove the copies that are older than 7 days, and what a crash left half made.

    A copy's age is the time in its name: a deletion that reached it has changed that of the file.
    """
    for part in _found(folder, "corral-*.part*"):
        remove(part)
    for copy in _found(folder, "corral-*.db"):
        with suppress(ValueError):
            made = datetime.strptime(copy.name, _NAME).replace(tzinfo=UTC).timestamp()
            if now - made > KEEP_S:
                remove(copy)


def erase(folder: Path, fn: Callable[[sqlite3.Connection], object], temporary: Path) -> None:
    """Delete from each copy too: `fn` runs on it, it is written anew and its log is cut.

    A copy from before the table existed has nothing to delete; one that can't be written is removed.
    """
    for path in _found(folder, "corral-*.db"):
        try:
            with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as db:
                db.execute("PRAGMA secure_delete=ON")
                db.execute("PRAGMA temp_store=MEMORY")
                db.execute("PRAGMA foreign_keys=ON")
                before = db.total_changes
                _run(fn, db)
                if db.total_changes != before:
                    rewrite(db, temporary)
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            log.error("%s still held what was deleted and could not be written (%s): it is removed", path, error)
            remove(path)


def rewrite(db: sqlite3.Connection, temporary: Path) -> None:
    """VACUUM, with its temporary file in this folder: in memory it would take as much as the file is large, and /tmp
    may be read-only or another's."""
    os.environ["SQLITE_TMPDIR"] = str(temporary)
    db.execute("PRAGMA temp_store=FILE")
    try:
        db.execute("VACUUM")
    finally:
        db.execute("PRAGMA temp_store=MEMORY")


def set_aside(state: Path) -> list[Path]:
    """What is left of databases that were corrupt, with their logs."""
    return _found(state, "corral.db.corrupt-*")


def scrub(state: Path, secrets: Sequence[bytes]) -> None:
    """Overwrite `secrets` in what is left of corrupt databases, where SQLite reaches nothing; a file that can't be
    written is removed."""
    for path in set_aside(state):
        try:
            with path.open("r+b") as file:
                if not file.seek(0, os.SEEK_END):
                    continue
                with mmap.mmap(file.fileno(), 0) as data:
                    for secret in secrets:
                        while (at := data.find(secret)) >= 0:
                            data[at : at + len(secret)] = bytes(len(secret))
                    data.flush()
        except (OSError, ValueError) as error:
            log.error("%s may hold what was destroyed and could not be written (%s): it is removed", path, error)
            remove(path)


def _found(folder: Path, pattern: str) -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError as error:
        log.error("%s could not be read: %s", folder, error)
        return []


def _run(fn: Callable[[sqlite3.Connection], object], db: sqlite3.Connection) -> None:
    try:
        fn(db)
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise


def flush(path: Path) -> None:
    """fsync a file or a folder."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def remove(path: Path) -> None:
    """With its log. A file that cannot be removed is told in the log."""
    for each in (path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        try:
            each.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s could not be removed: %s", each, error)
