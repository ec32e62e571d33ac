"""A disk that is full, or a quota on it that is used up: what to say of either and what to do. Blocks for no disk."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

from core.errors import CorralError, Failed, NoRoom

FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    return error.errno in FULL


def why(number: int | None, what: str) -> str:
    """`what` (`the disk`, `the disk with the database`) is full, by an errno of `FULL`."""
    return f"the quota of {_user()} on {what} is used up" if number == errno.EDQUOT else f"{what} is full"


def todo(number: int | None) -> str:
    if number == errno.EDQUOT:
        return "remove files of yours there or have the quota raised (`quota -s` shows it), and try again"
    return "make room and try again (`df -h` and `df -i` show of what)"


def fault(error: OSError, what: str, disk: str = "the disk") -> CorralError:
    """An error of a file as a sentence, without its number: `NoRoom` where `disk` is full, else `Failed`, with what did
    not happen (`what`)."""
    if is_full(error):
        return NoRoom("there is no room for the model", why(error.errno, disk), todo(error.errno))
    words = error.strerror or str(error)
    return Failed(what, f"{error.filename}: {words}" if error.filename else words, "look at the disk, and try again")


def lacks(folder: Path) -> str:
    """What the disk of `folder`, which need not be there yet, has run out of, and what to do; "" if it has room."""
    while not folder.exists():
        folder = folder.parent
    found = os.statvfs(folder)
    if not found.f_bavail:
        return f"the disk of {folder} is full: make room, then try again"
    if found.f_files and not found.f_favail:
        return f"the disk of {folder} takes no more files (its inodes are used up): remove some, then try again"
    return ""


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
