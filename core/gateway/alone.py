"""How long no daemon has been there, also over restarts of the gateway: the age of a file that one's presence touches.

Alone, a gateway decides by its last snapshot. A right that was taken away since, or a user who has left the host, is
not in it, so it does so for a stated time, and then as corral.toml says (`alone_hours`, `when_alone`).
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

TOUCH_S = 30.0
"""How often the file is touched: by so much a restart may be wrong."""


class Alone:
    """Raises nothing: a file that cannot be read or written is one that was touched at the start."""

    def __init__(self, file: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._file, self._clock = file, clock
        self._seen = clock()
        self._touched: float | None = None
        with contextlib.suppress(OSError):
            self._seen -= max(0.0, time.time() - file.stat().st_mtime)

    def look(self, there: bool) -> float:
        """Seconds since a daemon was there; `there`: one is now. Called each second."""
        now = self._clock()
        if not there:
            return now - self._seen
        self._seen = now
        if self._touched is None or now - self._touched >= TOUCH_S:
            self._touched = now
            with contextlib.suppress(OSError):
                os.close(os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.utime(self._file)
        return 0.0
