"""audit.proof beside the database: public keys and checkpoints, one line each, appended and never rewritten.

An append-only attribute (chattr +a) is no hindrance. A line that a crash or a full disk cut short stays, and the whole
line follows it.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import NamedTuple

from core.proof.statements import Checkpoint, Key, parse


class Proofs(NamedTuple):
    """What a place holds: keys and checkpoints in their order, and the lines that are none."""

    keys: list[Key]
    checkpoints: list[Checkpoint]
    damaged: list[int] = []
    """Numbers of lines, from 1."""


def read_proofs(path: Path) -> Proofs:
    """All lines; nothing if there is no such file. Raises OSError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return Proofs([], [])
    with open(fd, "rb") as file:
        return proofs_of(file.read().split(b"\n"))


def proofs_of(lines: list[bytes]) -> Proofs:
    """Sort lines by what they are. One that the next line begins with was cut short by a crash."""
    found = Proofs([], [], [])
    for number, raw in enumerate(lines, 1):
        try:
            line = parse(raw)
        except ValueError:
            following = lines[number] if number < len(lines) else raw  # the last one: it is being written
            if raw and not following.startswith(raw):
                found.damaged.append(number)
            continue
        if isinstance(line, Key):
            found.keys.append(line)
        elif isinstance(line, Checkpoint):
            found.checkpoints.append(line)
        else:
            found.damaged.append(number)
    return found


def append_proofs(path: Path, lines: list[bytes]) -> None:
    """Append and flush. Raises OSError; what was written of it by then stays and does no harm."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(fd).st_size
        begin = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
        text = begin + b"".join(line + b"\n" for line in lines)
        if os.write(fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(fd)
    finally:
        os.close(fd)
