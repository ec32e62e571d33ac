"""A disk that is full, or a quota on it that is used up: what to say of either and what to do. Blocks for no disk."""

from __future__ import annotations

import errno
import os
import pwd

FULL = (errno.ENOSPC, errno.EDQUOT)


def is_full(error: OSError) -> bool:
    return error.errno in FULL


def why(number: int | None, what: str) -> str:
    """`what` (`the disk`, `the disk with the database`) is full, by an errno of `FULL`."""
    return f"the quota of {_user()} on {what} is used up" if number == errno.EDQUOT else f"{what} is full"


def todo(number: int | None) -> str:
    if number == errno.EDQUOT:
        return "remove files of yours there or have the quota raised (`quota -s` shows it), and try again"
    return "make room and try again"


def _user() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid {os.getuid()}"
