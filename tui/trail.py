"""A window on the audit trail: some hundred records of a million, found by words, moved by keyset."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol

from core.nouns import AuditPage, AuditRecord
from tui.amounts import moment_of

PAGE = 100
"""Records that are asked for at once."""
KEPT = 1000
"""Records that are held; the farthest go when others come."""

_TIME = re.compile(r'(?<!\S)(since|until):("[^"]*"?|\S+)')


class Asked(Protocol):
    """What is needed of `client.proof`."""

    async def find(
        self, text: str = "", *, before_seq: int | None = None, after_seq: int | None = None, limit: int = 100
    ) -> AuditPage: ...


def asked(text: str, now: float) -> str:
    """What is typed, with the times that a person writes (`since:2h`, `until:14:03`, local) as epoch seconds. Raises
    ValueError."""
    return _TIME.sub(lambda found: f"{found[1]}:{moment_of(found[2].strip(chr(34)), now):.6f}", text.strip())


class Trail:
    """The records that fit `text`, newest first. Each method draws by calling `drawn` whenever there is more to show,
    and may be cancelled at any of its waits."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.records: list[AuditRecord] = []
        self.newest = self.oldest = 0
        """All between these seqs was looked at; 0 for nothing yet."""
        self.at_top = self.at_end = False
        """Nothing is newer, or older, than what is held."""
        self.first = 0
        """seq of the oldest record that the daemon has."""
        self.searching = self.cut = False
        """`cut`: the daemon's trail ends before what is held: it has another database."""
        self.working = ""
        """What the daemon says that takes a while."""
        self.unread: dict[str, None] = {}
        """What was passed over and why, as sentences."""

    async def begin(self, of: Asked, drawn: Callable[[], object], before: int | None = None) -> None:
        """The newest page, or the one below `before`."""
        self.records, self.at_end, self.at_top = [], False, before is None
        self.newest, self.oldest = max(0, (before or 0) - 1), before or 0
        await self._down(of, drawn)

    async def last(self, of: Asked, drawn: Callable[[], object]) -> None:
        """The oldest page."""
        self.records, self.at_end, self.at_top = [], True, False
        self.newest, self.oldest = 0, 1
        await self._up(of, drawn)

    async def older(self, of: Asked, drawn: Callable[[], object]) -> None:
        """One page more at the end."""
        if not self.at_end:
            await self._down(of, drawn)

    async def newer(self, of: Asked, drawn: Callable[[], object]) -> None:
        """One page more at the top, or all that is new there."""
        await self._up(of, drawn)

    async def _down(self, of: Asked, drawn: Callable[[], object]) -> None:
        self.searching, wanted = True, len(self.records) + PAGE
        try:
            while not self.at_end and len(self.records) < wanted:
                page = await of.find(self.text, before_seq=self.oldest or None, limit=wanted - len(self.records))
                self.take_older(page)
                drawn()
        finally:
            self.searching = False
        self._bound(top=True)
        drawn()

    async def _up(self, of: Asked, drawn: Callable[[], object]) -> None:
        self.searching, came = True, 0
        try:
            while came < PAGE:
                page = await of.find(self.text, after_seq=self.newest, limit=PAGE)
                self.cut = self.newest > page.last
                came += len(page.records)
                self.take_newer(page)
                drawn()
                if self.at_top:
                    break
        finally:
            self.searching = False
        self._bound(top=False)
        drawn()

    def take_older(self, page: AuditPage) -> None:
        """What was found below."""
        self.records += reversed(page.records)
        self.newest = self.newest or page.last
        self.oldest, self.at_end, self.first = page.searched, not page.more, page.first
        self._told(page)

    def take_newer(self, page: AuditPage) -> None:
        """What was found above."""
        self.records[:0] = reversed(page.records)
        self.newest, self.at_top = page.searched if page.more else page.last, not page.more
        self.first = page.first
        self._told(page)

    def _told(self, page: AuditPage) -> None:
        self.working = page.working
        self.unread.update(dict.fromkeys(page.unread))

    def live(self, news: Sequence[AuditRecord]) -> bool:
        """Take records that an event brought, if they are all that is new; False if they must be asked for."""
        fresh = [each for each in news if each.seq > self.newest]
        if self.text or not self.at_top or (fresh and fresh[0].seq != self.newest + 1):
            return False
        self.records[:0] = reversed(fresh)
        self.newest = fresh[-1].seq if fresh else self.newest
        self._bound(top=False)
        return True

    def _bound(self, *, top: bool) -> None:
        """Let the farthest go."""
        if len(self.records) <= KEPT:
            return
        if top:
            del self.records[: len(self.records) - KEPT]
            self.newest, self.at_top = self.records[0].seq, False
        else:
            del self.records[KEPT:]
            self.oldest, self.at_end = self.records[-1].seq, False
