"""The records of a launch, as its keeper left them: the lock, launch.json and exit.json."""

from __future__ import annotations

import fcntl
import functools
import json
import os
import time
from pathlib import Path
from typing import Any

import msgspec

from core.errors import Failed
from core.nodes.base import ExitRecord


def held(path: Path) -> bool | None:
    """Is the launch's lock held? None if there is no lock file. Raises `Failed` where nobody can say: a launch that
    lives must not be taken for one that never was."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise Failed("a launch cannot be looked at", f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def read(path: Path) -> dict[str, Any]:
    """A JSON object from a file; empty if it is missing, empty or torn."""
    try:
        found = json.loads(path.read_bytes().strip(b"\0 \n") or b"{}")
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


class _Told(msgspec.Struct, frozen=True):
    """The types of launch.json's fields."""

    kind: str = ""
    owner: str = ""
    boot_id: str = ""
    keeper_pid: int = 0
    keeper_start: int = 0
    pid: int = 0
    start: int = 0
    started_at: float = 0.0
    runs: int = 1
    before: dict[str, Any] = {}
    spec: dict[str, Any] = {}


QUIET_NS = 2_000_000_000
"""A record that was written longer ago is read once: the daemon looks at those of 20 launches a hundred times a second.
A younger one may be written again within one tick of its file system's clock."""


def told(path: Path) -> dict[str, Any]:
    """launch.json, not to be changed; empty if it cannot be read or a field has another type: one bad record must not
    hide the others."""
    try:
        found = path.stat()
    except OSError:
        return {}
    if time.time_ns() - found.st_mtime_ns < QUIET_NS:
        return _checked(path)
    return _known(path, found.st_ino, found.st_mtime_ns, found.st_size)


@functools.lru_cache(maxsize=256)
def _known(path: Path, inode: int, written_ns: int, size: int) -> dict[str, Any]:
    return _checked(path)


def _checked(path: Path) -> dict[str, Any]:
    found = read(path)
    try:
        msgspec.convert(found, _Told)
    except (msgspec.ValidationError, OverflowError):
        return {}
    return found


def exit_of(found: dict[str, Any]) -> ExitRecord:
    """exit.json as a record."""
    try:
        return msgspec.convert({key: value for key, value in found.items() if key != "version"}, ExitRecord)
    except (msgspec.ValidationError, OverflowError):
        return ExitRecord(reason="its exit record cannot be read")
