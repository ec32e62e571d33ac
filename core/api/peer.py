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

_THROUGH = ("console", "cli")
LOOKUP_S = 2.0
"""How long a caller waits for the own name; then the uid stands for it."""
KEPT = 4096
KNOWN_S = 60.0
"""A name is believed for so long: users are renamed and leave, and their numbers are given out again."""


class Names:
    """The names of uids, looked up in a thread of their own: a directory may be slow, or gone, and nothing else may
    wait for it."""

    def __init__(
        self, look_up: Callable[[int], str] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look_up = look_up or user_name
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "names")
        self._known: dict[int, tuple[float, str]] = {}

    async def of(self, uid: int) -> str:
        """`uid:1000` if the host knows no name, or does not say it in time and never did."""
        until, known = self._known.get(uid, (0.0, ""))
        if known and self._clock() < until:
            return known
        try:
            async with asyncio.timeout(LOOKUP_S):
                name = await asyncio.get_running_loop().run_in_executor(self._thread, self._look_up, uid)
        except TimeoutError:
            return known or f"uid:{uid}"
        if len(self._known) >= KEPT:
            self._known.clear()
        self._known[uid] = (self._clock() + KNOWN_S, name)
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
