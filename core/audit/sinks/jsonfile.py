"""A file of JSON lines, which is only ever appended to."""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from core.audit.sinks.lines import Item
from core.errors import Invalid

_SIZE = array.array("l").itemsize
GET_FLAGS, SET_FLAGS = 0x80006601 | _SIZE << 16, 0x40006602 | _SIZE << 16
"""FS_IOC_GETFLAGS and FS_IOC_SETFLAGS of linux/fs.h, as x86, ARM and RISC-V have them."""
APPEND = 0x20
"""FS_APPEND_FL: whoever may set it (CAP_LINUX_IMMUTABLE) may take it away."""


class JsonFile:
    """It is opened anew for each batch, so that it may be renamed at any time (logrotate) or be `chattr +a`."""

    name = "file"

    def __init__(self, path: str, *, append_only: bool = False) -> None:
        self._path = Path(path)
        self._append_only = append_only
        self.trouble = ""
        """What was asked for and cannot be had; "" for nothing."""
        if not self._path.is_absolute():
            raise Invalid(f"audit.sinks.file is {path!r}", "it is no full path", "write it from / on")

    async def send(self, items: Sequence[Item]) -> None:
        """Append and flush. Raises OSError; what was written of the batch is taken back where that can be done."""
        if items:
            await asyncio.to_thread(self._append, "".join(item.text + "\n" for item in items).encode())

    def _append(self, text: bytes) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._path, flags, 0o600)
        try:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is no file", str(self._path))
            if self._append_only:
                self.trouble = _hold(fd)
            size = found.st_size
            begin = b"\n" if size and os.pread(fd, 1, size - 1) != b"\n" else b""
            if os.write(fd, begin + text) != len(begin + text):
                with contextlib.suppress(OSError):  # chattr +a: the cut line stays, the whole one follows
                    os.ftruncate(fd, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
            os.fsync(fd)
        finally:
            os.close(fd)

    async def close(self) -> None:
        """Nothing stays open."""


def _hold(fd: int) -> str:
    """Set the file's append-only attribute; why it is not set, "" if it is."""
    flags = array.array("l", [0])
    try:
        fcntl.ioctl(fd, GET_FLAGS, flags)
        if not flags[0] & APPEND:
            flags[0] |= APPEND
            fcntl.ioctl(fd, SET_FLAGS, flags)
    except OSError as error:
        return f"its file is not append-only: {error.strerror or error}"
    return ""
