"""How fast a tier is read: past the page cache, and from it.

Measured on a file that nobody has mapped: one of its own that is written, put on the disk and removed afterwards. Where
there is no room for that, or nothing may be written, the largest stored file is read instead.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.catalog.tiers import cold
from core.errors import NoRoom

PROBE = 256 << 20
LEAST = 8 << 20
"""Bytes of a file that a speed can be told from."""
MOST_S = 5.0
"""How long it is read at most, past the cache."""
TIMES = 3


class Speed(NamedTuple):
    """Bytes a second."""

    cold: float
    warm: float


def measure(probe: Path, size: int, largest: Path | None, clock: Callable[[], float] = time.perf_counter) -> Speed:
    """In a thread. `probe` may be written with `size` bytes; it is removed. Raises `NoRoom` where nothing can be
    measured, and OSError."""
    if size >= LEAST:
        try:
            _write(probe, size)
            return _read(probe, clock)
        except OSError:
            if largest is None:
                raise
        finally:
            with contextlib.suppress(OSError):
                probe.unlink(missing_ok=True)
    if largest is None or largest.stat().st_size < LEAST:
        raise NoRoom(
            "the speed cannot be measured", f"{LEAST >> 20} MiB are not free there, nor stored in one file", "make room"
        )
    return _read(largest, clock)


def _write(path: Path, size: int) -> None:
    """Bytes that no disk compresses."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        left = size
        while left > 0:
            left -= os.write(fd, os.urandom(min(cold.CHUNK, left)))
        os.fsync(fd)
    finally:
        os.close(fd)


def _read(path: Path, clock: Callable[[], float]) -> Speed:
    began, done = clock(), 0
    for piece in cold.pieces(path):
        done += len(piece)
        if clock() - began > MOST_S:
            break
    slow = done / max(clock() - began, 1e-9)
    return Speed(slow, _warm(path, min(done, PROBE), clock))


def _warm(path: Path, size: int, clock: Callable[[], float]) -> float:
    """Read so much once, and then again out of the cache; the middle one of some tries."""
    rates = []
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        with mmap.mmap(-1, cold.CHUNK) as buffer, memoryview(buffer) as view:
            for n in range(1 + TIMES):
                began, done = clock(), 0
                while done < size and (count := os.preadv(fd, [view], done)):
                    done += count
                if n:
                    rates.append(done / max(clock() - began, 1e-9))
    finally:
        os.close(fd)
    return statistics.median(rates)
