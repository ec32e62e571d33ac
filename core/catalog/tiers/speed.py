"""How fast a tier is read: past the page cache, and from it. What lies in memory has no speed past the cache.

Measured on a file that nobody has mapped: one of its own that is written, put on the disk and removed afterwards. Where
there is no room for that, or nothing may be written, the largest stored file is read instead.
"""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import secrets
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from core.catalog.sweep import lying
from core.catalog.tiers import cold
from core.catalog.tiers.ledger import Away, Ledger
from core.errors import NoRoom
from core.nouns import Tier

PROBE = 256 << 20
LEAST = 8 << 20
"""Bytes of a file that a speed can be told from."""
MOST_S = 5.0
"""How long it is read at most, past the cache."""
TIMES = 3


class Speed(NamedTuple):
    """Bytes a second. `cold` None: it lies in memory."""

    cold: float | None
    warm: float


async def measured(ledger: Ledger, tier: Tier) -> Speed:
    """Of a tier that is there, with room promised to the file that it is measured on. Raises `NoRoom`, `Away`."""
    path, id = Path(tier.path), f"speed-{secrets.token_hex(4)}"
    size = min(PROBE, tier.free_bytes // 2) if tier.state == "there" else 0
    promised = await ledger.reserve(tier.name, size, id, "the measurement") if size else None
    try:
        largest = await asyncio.to_thread(_largest, path)
        await asyncio.to_thread((path / "incoming").mkdir, 0o700, True, True)
        return await asyncio.to_thread(measure, path / "incoming" / f"{id}.probe", size, largest)
    except OSError as error:
        raise Away(f"the speed of {tier.name} could not be measured", error.strerror or str(error)) from error
    finally:
        if promised is not None:
            await ledger.release(promised)


def _largest(path: Path) -> Path | None:
    """The largest file that is stored there."""
    found = [each for copy in lying(path) for each in (copy.iterdir() if copy.is_dir() else (copy,))]
    return max(found, key=lambda each: each.stat().st_size, default=None)


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
    if cold.in_memory(path):
        return Speed(None, _warm(path, min(path.stat().st_size, PROBE), clock))
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
