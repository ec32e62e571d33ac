"""Who calls: the kernel's word about the other end of a Unix socket, never something said."""

from __future__ import annotations

import asyncio
import pwd
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from core.nouns import Actor
from core.peer import peer
from core.userfiles import Stamp, stamp

_THROUGH = ("console", "cli")
LOOKUP_S = 2.0
"""How long a caller waits for the own name; then the uid stands for it, which holds no right."""
KEPT = 4096
KNOWN_S = 2.0
"""A name is believed for so long, and only while the host's own files are as they were: users are renamed and leave,
and their numbers are given out again. A directory tells nobody that it has changed, so for it these seconds count."""


class Names:
    """The names of uids, looked up in a thread of their own: a directory may be slow, or gone, and nothing else may
    wait for it."""

    def __init__(
        self, look_up: Callable[[int], str] | None = None, clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], Stamp] = stamp,
    ) -> None:  # fmt: skip
        self._look_up = look_up or user_name
        self._clock = clock
        self._changed = changed
        self._thread = ThreadPoolExecutor(1, "names")
        self._known: dict[int, tuple[float, Stamp, str]] = {}

    async def of(self, uid: int) -> str:
        """`uid:1000` if the host knows no name, or does not say it in time: what it said before may be another's now,
        and rights hang on it."""
        before = self._changed()  # a change during the look-up makes what it finds old at once
        until, then, known = self._known.get(uid, (0.0, (), ""))
        if known and then == before and self._clock() < until:
            return known
        self._known.pop(uid, None)
        began = self._clock()
        try:
            async with asyncio.timeout(LOOKUP_S):
                name = await asyncio.get_running_loop().run_in_executor(self._thread, self._look_up, uid)
        except TimeoutError:
            return f"uid:{uid}"
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[uid] = (began + KNOWN_S, before, name)
        return name

    async def actor(self, sock: socket.socket, through: str) -> Actor:
        """Who is at the other end. `through` is what the client says of itself, for the record only."""
        found = peer(sock)
        through = through if through in _THROUGH else "api"
        name = await self.of(found.uid)
        return Actor(uid=found.uid, name=name, through=through, groups=tuple(sorted(found.groups)))

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def user_name(uid: int) -> str:
    """The name of a uid, or `uid:1000` if the host knows none. Blocks while a directory is asked."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid:{uid}"
