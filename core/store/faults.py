"""What SQLite and the disk say, as the family's `StoreError`: what did not happen, why, what to do."""

from __future__ import annotations

import errno
import sqlite3

from core import fulldisk
from core.errors import StoreError

IOERR_SHMSIZE = sqlite3.SQLITE_IOERR | 19 << 8
"""corral.db-shm could not be made longer; SQLite does not say SQLITE_FULL here."""


def is_full(error: BaseException) -> bool:
    """Did the disk, or the user's quota on it, run out?"""
    if isinstance(error, sqlite3.Error):
        full = _code(error) == sqlite3.SQLITE_FULL or "disk is full" in str(error)
        return full or getattr(error, "sqlite_errorcode", 0) == IOERR_SHMSIZE
    return isinstance(error, OSError) and fulldisk.is_full(error)


def may_be_quota(error: sqlite3.Error) -> bool:
    """SQLite has no word for a quota that is used up: it is an I/O error of a write, as a broken disk's is."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_IOERR_WRITE, IOERR_SHMSIZE)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Is the file itself wrong? A disk that can't be read for the moment is another matter."""
    return _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def store_error(
    error: sqlite3.Error | OSError, what: str = "the change was not made", *, number: int = 0
) -> StoreError:  # fmt: skip
    """`error` as a sentence; `what` says what did not happen. `number`: an errno that says how the disk is full."""
    if number or is_full(error):
        number = number or getattr(error, "errno", 0) or errno.ENOSPC
        return StoreError(what, fulldisk.why(number, "the disk with the database"), fulldisk.todo(number))
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return StoreError(what, f"{where}{error.strerror or error}", "mend the folder's mode, or the disk")
    return StoreError(what, f"the database says: {error}", "look at the daemon's log and the disk")


def unsure(error: sqlite3.Error) -> StoreError:
    """An I/O error in COMMIT: the record of the commit may have reached the disk although its flush failed. Until the
    next change it is either there wholly or not at all, and only a restart can tell."""
    return StoreError(
        "the change was probably not made",
        f"the database says: {error}, while it was committed",
        "look at the disk, and at what is there before you try again",
    )


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
