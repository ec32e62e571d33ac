"""The file that is there, before it is opened for writing: its integrity, its version, a copy before a migration."""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from core.errors import StoreError
from core.paths import Paths
from core.store import copies, migrate
from core.store.faults import is_corrupt, is_full, may_be_quota, store_error

log = logging.getLogger(__name__)


class _Corrupt(Exception):
    """The file is no database, or not a whole one; the text says how."""


def check(paths: Paths, known: Sequence[migrate.Migration], now: float) -> list[str]:
    """Set a corrupt file aside, copy a whole one before a migration; the sentences to be said to people.

    Raises `StoreError` if the file is newer than the program, or can't be read or copied; it is untouched then.
    """
    path = paths.database
    try:
        _roll_back(paths)
        if path.exists() and path.stat().st_size:
            _look(paths, known, now)
            return []
    except _Corrupt as error:
        aside = _set_aside(path, now)
        return [
            _say(
                f"the database was corrupt ({error}) and is set aside as {aside.name}; a new one was begun: import and"
                " deploy the models again; what still runs is in `corral ps`, and `corral shutdown --all` ends it"
            )
        ]
    told = []
    if paths.audit_head.exists():
        told.append(_say(f"{path} is gone although audit.head knows its records; a new one was begun"))
    log_file = path.with_name(path.name + "-wal")
    if log_file.exists() and log_file.stat().st_size:  # SQLite would remove it
        aside = _set_aside(path, now)
        told.append(_say(f"a write-ahead log without its database is set aside as {aside.name}-wal"))
    return told


def _say(text: str) -> str:
    log.error(text)
    return text


def _roll_back(paths: Paths) -> None:
    """End what a crash cut off before the write-ahead log was in use: while a rollback journal lies there, SQLite lets
    nobody read."""
    journal = paths.database.with_name(paths.database.name + "-journal")
    if not journal.exists() or not paths.database.exists():
        return
    with _faults(paths), closing(sqlite3.connect(paths.database, isolation_level=None, timeout=10)) as db:
        db.execute("SELECT count(*) FROM sqlite_master")


@contextmanager
def _faults(paths: Paths) -> Iterator[None]:
    """SQLite's errors as `_Corrupt` or `StoreError`."""
    try:
        yield
    except sqlite3.Error as error:
        if is_corrupt(error):
            raise _Corrupt(str(error)) from error
        if is_full(error) or may_be_quota(error):
            raise  # the ballast can help
        raise StoreError(
            f"{paths.database} cannot be opened", str(error), "mend its mode, or the disk (read-only? full?)"
        ) from error


def _look(paths: Paths, known: Sequence[migrate.Migration], now: float) -> None:
    """Read-only, so that closing it does not fold the log of a corrupt file into it."""
    uri = f"file:{quote(str(paths.database))}?mode=ro"
    with _faults(paths), closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=10)) as db:
        _quick_check(db)
        migrate.check_not_newer(db, known)
        had = migrate.applied(db)
        _refuse_gaps(db, [each for each in known if each[0] in had], paths)
        if had and {number for number, _, _ in known} - had:
            _copy(db, paths.backups, now)


def _quick_check(db: sqlite3.Connection) -> None:
    """Raises `_Corrupt`; a page that the disk would not give is an `OperationalError` and no corruption."""
    verdict = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
    if verdict == "ok":
        return
    unread = re.search(r"error code=(\d+)", verdict)
    if unread and int(unread[1]) & 0xFF == sqlite3.SQLITE_IOERR:
        raise sqlite3.OperationalError(f"disk I/O error: {verdict}")
    raise _Corrupt(verdict)


def _refuse_gaps(db: sqlite3.Connection, had: Sequence[migrate.Migration], paths: Paths) -> None:
    """Raises `StoreError` for a database in which somebody has dropped a table or a column: every start would fail over
    it, each in words of its own."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        for _, _, sql in had:
            model.executescript(sql)
        wanted, there = _columns(model), _columns(db)
    tables = {table for table, _ in there}
    gaps = {f"{table}.{column}" if table in tables else f"the table {table}" for table, column in wanted - there}
    if gaps:
        raise StoreError(
            f"{paths.database} lacks {', '.join(sorted(gaps)[:5])}", "it was there, and somebody has dropped it",
            f"put back a copy (see {paths.backups}), or move the file away: a new one begins with the old chain's head,"
            " and says that the records before are lost",
        )  # fmt: skip


def _columns(db: sqlite3.Connection) -> set[tuple[str, str]]:
    """(table, column) of all tables."""
    sql = "SELECT m.name, c.name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'"
    return set(db.execute(sql).fetchall())


def _copy(db: sqlite3.Connection, folder: Path, now: float) -> None:
    try:
        copies.make(db, folder, now)
    except (sqlite3.Error, OSError) as error:
        if isinstance(error, sqlite3.Error) and is_corrupt(error):
            raise
        raise store_error(error, "the database was not migrated: it could not be copied aside before") from error


def _set_aside(path: Path, now: float) -> Path:
    """Rename the file and its log; never onto another one. The file goes first: its log without it is no database (and
    is set aside by the next start), it without its log would be an older one."""
    aside = path.with_name(time.strftime("corral.db.corrupt-%Y%m%dT%H%M%S", time.gmtime(now)))
    while list(path.parent.glob(f"{aside.name}*")):
        aside = aside.with_name(aside.name + "+")
    for suffix in ("", "-journal", "-wal", "-shm"):
        file = path.with_name(path.name + suffix)
        if file.exists():
            file.rename(aside.with_name(aside.name + suffix))
    copies.flush(path.parent)
    return aside
