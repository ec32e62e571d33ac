"""The names that uids have now, looked at from time to time: users are renamed and leave, and numbers go to others."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable

from core.access.people import names_of
from core.errors import CorralError
from core.nouns import Subject
from core.userfiles import UserChanges

log = logging.getLogger(__name__)

LOOK_EVERY_S = 60.0
"""For users of a directory, which tells nobody that it has changed."""


class KnownNames:
    """Of the uids that `whose` gives at each look. `names` has no uid that has left the host."""

    def __init__(self, whose: Callable[[], Iterable[int]]) -> None:
        self._whose = whose
        self._changes = UserChanges()
        self.names: dict[int, str] = {}
        self._looked = False

    async def look(self) -> bool:
        """Look now; whether anything has changed. Those that were known stay known when the host's directory does not
        answer: a slow one locks nobody out."""
        before = self.names
        try:
            self.names = await names_of(sorted(self._whose()))
            self._looked = True
        except CorralError as error:
            log.warning("%s", error)
        return self.names != before

    def gone(self, subject: Subject) -> str:
        """Why nobody on this host is this user any more; "" while somebody is, or nobody has said."""
        if subject.kind != "user" or not self._looked or self.names.get(subject.id) == subject.name:
            return ""
        now = self.names.get(subject.id)
        return f"uid {subject.id} is {now} now" if now else f"uid {subject.id} is nobody's any more"

    async def run(
        self, tell: Callable[[], None], pause: Callable[[float], Awaitable[None]] | None = None, *,
        also: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        """Look each minute, and at once when the host's own files change, and `tell` what has changed, until
        cancelled. `also` is done at each look."""
        while True:
            await (pause or self._changes.within)(LOOK_EVERY_S)
            if await self.look():
                tell()
            if also is not None:
                await also()
