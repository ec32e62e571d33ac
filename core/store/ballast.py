"""8 MiB kept on the disk, given up when it is full, so that stops, deaths and refusals can still be recorded."""

from __future__ import annotations

import errno
import logging
import os
from contextlib import suppress
from pathlib import Path

from core import fulldisk

log = logging.getLogger(__name__)

BALLAST = 8 << 20
"""Bytes."""
MARGIN = 8 << 20
"""Bytes that must be free beside the ballast before it is made again: else the room that it gave would count."""
TRY = 1 << 20
"""Bytes that a disk must have to spare not to count as full."""


class Ballast:
    """The file and whether it is there. Its methods block: they are called in threads."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.low = False
        """The disk is full and the ballast given up: nothing may be started until there is room again."""
        self.number = errno.ENOSPC
        """How it is full: ENOSPC, or EDQUOT for the quota on it."""

    def load(self) -> None:
        """Make it if it is not whole; without room for it and some beside it `low` is set."""
        try:
            if not self._path.exists() or self._path.stat().st_size != BALLAST:
                self._allocate()
            if self.low:
                log.info("there is room again: the ballast of %d MiB is made", BALLAST >> 20)
            self.low = False
        except OSError as error:
            if not self.low:
                log.error("no room for the ballast: %s", error)
            self.low = True
            if fulldisk.is_full(error):
                self.number = error.errno or errno.ENOSPC

    def _allocate(self) -> None:
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < BALLAST + MARGIN:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, BALLAST + MARGIN)  # only this says whether a quota has room for both
            os.ftruncate(fd, BALLAST)
        except OSError:
            with suppress(OSError):
                self._path.unlink()
            raise
        finally:
            os.close(fd)

    def full(self) -> int:
        """Whether some room beside the ballast can be had: 0, or the errno that says why not."""
        path = self._path.with_name(self._path.name + ".try")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, TRY)
            finally:
                os.close(fd)
                path.unlink()
        except OSError as error:
            return error.errno or 0 if fulldisk.is_full(error) else 0
        return 0

    def drop(self, number: int = errno.ENOSPC) -> bool:
        """Give it up, as the disk is full in this way; False if it was gone already."""
        self.low, self.number = True, number
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("the ballast could not be given up: %s", error)
            return False
        log.error("%s: the ballast of %d MiB is given up", fulldisk.why(number, "the disk"), BALLAST >> 20)
        return True
