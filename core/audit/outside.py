"""The files beside the database: audit.head, the chain's end, and audit.accepted, the fault that was accepted last."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from core.paths import Paths


class Head(msgspec.Struct, frozen=True):
    """What audit.head says: the last record that was committed when it was written."""

    version: int
    seq: int
    hash: str


class Accepted(msgspec.Struct, frozen=True):
    """What audit.accepted says: the record by which a fault was accepted. One in the database alone accepts nothing."""

    version: int
    seq: int
    hash: str


def read_head(paths: Paths) -> Head | None:
    """The head outside the database; None if there is none. A damaged file reads as a head that fits nothing."""
    try:
        return msgspec.json.decode(paths.audit_head.read_bytes(), type=Head)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, OSError):
        return Head(1, 1, "damaged")


def write_head(paths: Paths, head: Head) -> None:
    """Replace audit.head atomically; a crash leaves the old one, which is only behind. Raises OSError."""
    replace(paths.audit_head, msgspec.json.encode(head))


def read_accepted(paths: Paths) -> Accepted | None:
    """None if nothing was accepted, or nobody can say: then the fault is told again."""
    try:
        return msgspec.json.decode(paths.audit_accepted.read_bytes(), type=Accepted)
    except (msgspec.MsgspecError, OSError):
        return None


def write_accepted(paths: Paths, accepted: Accepted) -> None:
    """Replace audit.accepted atomically. Raises OSError."""
    replace(paths.audit_accepted, msgspec.json.encode(accepted))


def replace(path: Path, text: bytes) -> None:
    """Write `text` and a newline as the whole file, atomically. Raises OSError."""
    temporary = path.with_name(path.name + ".new")
    text += b"\n"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, text) != len(text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(temporary))
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
