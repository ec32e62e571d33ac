"""A keeper is started: it holds its launch's lock from before its first instruction."""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

from core.keeper import keeper as keeper_program

KEEPER = str(keeper_program.__file__)


def spawn(lock_path: Path, order: bytes) -> tuple[int, int]:
    """Start a keeper that holds the lock; (its pid, a file with what it says on standard error).

    Not asyncio's subprocess: its transport kills the child when it is collected, so that keepers would end with
    the daemon. The order goes through a memory file, since a pipe could fill up.
    """
    held: list[int] = []

    def above(fd: int) -> int:
        """A copy over 9, so that no dup2 in the child hits a source."""
        held.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10))
        os.close(fd)
        return held[-1]

    errors = -1
    try:
        lock = above(os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        told = above(os.memfd_create("order"))
        os.write(told, order)
        os.lseek(told, 0, os.SEEK_SET)
        errors = os.memfd_create("errors")
        words = above(os.dup(errors))
        null = above(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        copies = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in ((told, 0), (null, 1), (words, 2), (lock, 3))]
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", KEEPER, "3"],
            {"LC_ALL": "C.UTF-8"},
            file_actions=copies,
            setsid=True,
        )
    except BaseException:
        if errors >= 0:
            os.close(errors)
        raise
    finally:
        for fd in held:
            os.close(fd)
    return pid, errors
