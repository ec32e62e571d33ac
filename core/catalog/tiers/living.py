"""Whether a database's daemon lives on this host: it holds a name that the kernel frees when it ends.

A lock on the tier's marker would say the same, and would keep the tier's disk from being unmounted.
"""

from __future__ import annotations

import contextlib
import errno
import socket


class Living:
    """Held by the daemon of `database`."""

    def __init__(self, database: str) -> None:
        self._database = database
        self._held: socket.socket | None = None

    def hold(self) -> None:
        """Again is nothing. A daemon before this one may hold it still: try again later."""
        if self._held is None:
            with contextlib.suppress(OSError):
                self._held = _bound(self._database)

    def close(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


def lives(database: str) -> bool:
    """Whether a daemon of this host uses that database now. Of other hosts nothing is known."""
    try:
        _bound(database).close()
    except (OSError, ValueError) as error:
        return isinstance(error, OSError) and error.errno == errno.EADDRINUSE
    return False


def _bound(database: str) -> socket.socket:
    """Raises OSError. Nobody listens there: only that the name is taken says something."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        made.bind(f"\0corral-tiers-{database[:64]}")
    except BaseException:
        made.close()
        raise
    return made
