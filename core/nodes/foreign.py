"""Files in a launch folder: an engine may put there what it likes, so nothing is followed, waited for or trusted."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_file(folder: Path, name: str) -> int:
    """A descriptor of the regular file `name` right in `folder`. Raises OSError for a link, a pipe, a device, or a
    file of more than one name (it could be a hard link to somebody else's)."""
    at = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=at)
    finally:
        os.close(at)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        raise OSError(f"{name} is no file of its own")
    return fd


def read(folder: Path, name: str, limit: int) -> bytes:
    """At most `limit` bytes of such a file. Raises OSError."""
    fd = open_file(folder, name)
    try:
        return os.pread(fd, limit, 0)
    finally:
        os.close(fd)


def is_socket(path: Path) -> bool:
    """Is it a socket itself, not a link to somebody else's?"""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False
