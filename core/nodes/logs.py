"""The log of a launch, as its keeper rotated it: a range of its bytes, and the byte of a moment."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec

from core.errors import NotFound
from core.nodes import foreign
from core.nodes.base import LogPiece

_Mark = tuple[int, int, int]
"""Of log.json: byte of the whole log, first and last unix second of what is written from there to the next mark."""


def read(folder: Path, start: int, limit: int) -> LogPiece:
    """Up to `limit` bytes from `start`, over rotated files too; a negative `start` counts from the end."""
    if not folder.is_dir():
        raise NotFound(f"no log of launch {folder.name}", "its folder has been removed")
    with contextlib.ExitStack() as stack:
        pieces: list[tuple[int, int, int]] = []
        for number, first in enumerate(_starts(folder)):
            try:
                fd = foreign.open_file(folder, "engine.log" if number == 0 else f"engine.log.{number}")
            except OSError:
                continue
            stack.callback(os.close, fd)
            pieces.append((first, fd, os.fstat(fd).st_size))
        if not pieces:
            return LogPiece(start=0, end=0, data=b"")
        end = pieces[0][0] + pieces[0][2]
        wanted = max(0, end + start) if start < 0 else min(start, end)
        oldest = pieces[-1][0]
        begin = max(wanted, oldest)
        data = b""
        for first, fd, size in reversed(pieces):
            if first + size > begin and len(data) < limit:
                data += os.pread(fd, limit - len(data), max(0, begin - first))
    return LogPiece(start=begin, end=begin + len(data), data=data, lost=begin - wanted if start >= 0 else 0)


def since(folder: Path, moment: float) -> int:
    """The byte from which on all stands that was written since `moment` (unix seconds)."""
    try:
        marks = msgspec.convert(_index(folder).get("marks", []), list[_Mark])
    except msgspec.ValidationError:
        marks = []
    if not marks:
        return 0  # an older keeper's
    found = next((byte for byte, _, last in marks if last >= int(moment)), None)
    return found if found is not None else read(folder, -1, 1).end


def _index(folder: Path) -> dict[str, Any]:
    """log.json of a launch; empty if it is missing, torn or not the keeper's."""
    try:
        found = json.loads(foreign.read(folder, "log.json", 65536))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _starts(folder: Path) -> list[int]:
    """At which byte of the whole log each of its files begins, the newest first."""
    try:
        return msgspec.convert(_index(folder).get("starts", [0]), list[int])[:128]
    except msgspec.ValidationError:
        return [0]
