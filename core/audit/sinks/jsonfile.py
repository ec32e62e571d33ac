"""A file of JSON lines, which is only ever appended to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from core.audit.sinks.lines import Item
from core.errors import Invalid


class JsonFile:
    """It is opened anew for each batch, so that it may be renamed at any time (logrotate) or be `chattr +a`."""

    name = "file"

    def __init__(self, path: str) -> None:
        self._path = Path(path)
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
