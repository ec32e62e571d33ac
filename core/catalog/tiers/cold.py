"""Files read past the page cache: what the disk says, not what the kernel remembers of it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

CHUNK = 4 << 20
WINDOW = 1 << 30
"""Bytes of a file that are looked at together for what of them is in memory."""
MEMORY = (0x01021994, 0x858458F6)
"""What the kernel calls tmpfs and ramfs (linux/magic.h)."""
STATFS_BYTES = 256
"""Room for `struct statfs`, whose first field is the type."""
_PROT_READ, _MAP_SHARED = 1, 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def in_memory(path: Path) -> bool:
    """Whether the file system there is memory itself: nothing in it lies past the page cache. Newer kernels give its
    files O_DIRECT all the same. Raises OSError."""
    told = ctypes.create_string_buffer(STATFS_BYTES)
    if _libc.statfs(os.fsencode(path), told) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(path))
    return ctypes.c_long.from_buffer(told).value & 0xFFFFFFFF in MEMORY


def open_cold(path: Path) -> tuple[int, bool]:
    """A descriptor that reads from the disk: with O_DIRECT where the file system has it, else with what of the file is
    in the cache put out of it (what somebody has mapped stays); and whether it is direct. Raises OSError."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    with contextlib.suppress(OSError):
        return os.open(path, flags | os.O_DIRECT), True
    fd = os.open(path, flags)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return fd, False


def pieces(path: Path) -> Iterator[memoryview]:
    """All bytes of a file past the page cache; each piece is good until the next one. Raises OSError."""
    fd, direct = open_cold(path)
    try:
        with mmap.mmap(-1, CHUNK) as buffer, memoryview(buffer) as view:  # aligned, as O_DIRECT asks for
            done = 0
            while count := os.preadv(fd, [view], done):
                with view[:count] as piece:
                    yield piece
                if not direct:
                    os.posix_fadvise(fd, done, count, os.POSIX_FADV_DONTNEED)
                done += count
    finally:
        os.close(fd)


def cached(path: Path) -> float | None:
    """What part of a file is in the page cache, 0 to 1; None where the kernel does not say. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(fd).st_size
        pages = here = 0
        for start in range(0, size, WINDOW):
            length = min(WINDOW, size - start)
            at = _libc.mmap(None, length, _PROT_READ, _MAP_SHARED, fd, start)
            if at in (None, ctypes.c_void_p(-1).value):
                return None
            try:
                told = ctypes.create_string_buffer(-(-length // mmap.PAGESIZE))
                if _libc.mincore(at, length, told) != 0:
                    return None
            finally:
                _libc.munmap(at, length)
            pages += len(told)
            here += sum(told.raw.translate(_LOWEST))
        return here / pages if pages else None
    finally:
        os.close(fd)


_LOWEST = bytes(each & 1 for each in range(256))
"""Only the lowest bit of what mincore says of a page is defined."""
