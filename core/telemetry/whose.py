"""Whose a uid is: name and first group, remembered for a while. Usage is kept under the name of its time."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterable

from core.access.people import name_and_group
from core.errors import TimedOut

log = logging.getLogger(__name__)

KNOWN_S = 60.0
"""A name is believed for so long: users are renamed and leave, and their numbers are given out again."""
KEPT = 4096

LookUp = Callable[[Iterable[int]], Awaitable[dict[int, tuple[str, str]]]]


class Whose:
    """Asks the host's directory, which may be slow or gone: usage is committed all the same."""

    def __init__(self, look_up: LookUp = name_and_group, clock: Callable[[], float] = time.monotonic) -> None:
        self._look_up = look_up
        self._clock = clock
        self._known: dict[int, tuple[float, tuple[str, str]]] = {}

    async def of(self, uids: Iterable[int]) -> dict[int, tuple[str, str]]:
        """(name, group) of each; `uid:1000` and no group for whom the host does not know, or not in time and never
        did."""
        wanted = set(uids)
        now = self._clock()
        asked = [uid for uid in wanted if uid not in self._known or now >= self._known[uid][0]]
        if asked:
            try:
                found = await self._look_up(asked)
            except TimedOut as error:
                log.warning("%s; usage goes by the names known before", error)
                found = {uid: self._known[uid][1] for uid in asked if uid in self._known}
            if len(self._known) + len(asked) > KEPT:
                self._known = {uid: kept for uid, kept in self._known.items() if uid in wanted}
            until = self._clock() + KNOWN_S
            self._known.update({uid: (until, found.get(uid, (f"uid:{uid}", ""))) for uid in asked})
        return {uid: self._known[uid][1] for uid in wanted}
