"""The whole trail for who reads it: the database, and on into the archives where the question reaches there."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from core.audit import seals, search
from core.audit.archived import Archived
from core.audit.chain import Row
from core.audit.log import to_record
from core.audit.search import Found, Wanted
from core.audit.vouched import outside_of
from core.nouns import AuditArchive, AuditPage, AuditRecord
from core.paths import Paths
from core.store import Store

BUDGET_S = 0.04
"""A look into archives stops after about this long, and says how far it came."""
KEPT = 16
"""Archives whose hashes are kept in memory: some 100 bytes for each 256 KiB of a file."""
_SEALS = "SELECT number, last, file, bytes, line FROM audit_seals ORDER BY number"


class _Far(NamedTuple):
    """What was found in archives. All between where the search began and `searched` was looked at."""

    records: list[AuditRecord]
    searched: int
    more: bool
    unread: tuple[str, ...] = ()
    working: str = ""


class Reader:
    """One a daemon."""

    def __init__(self, store: Store, paths: Paths, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._store, self._paths, self._clock = store, paths, clock
        self._turn = threading.Lock()
        """One look into archives at a time."""
        self._open: OrderedDict[int, Archived] = OrderedDict()
        self._seen: list[tuple[object, ...]] | None = None
        self._archives: list[AuditArchive] = []
        self._wrong: tuple[str, ...] = ()

    async def find(
        self, asked: Wanted, *, before_seq: int | None = None, after_seq: int | None = None, limit: int = 100
    ) -> AuditPage:
        """Records that are `asked` for: the newest below `before_seq`, or the oldest above `after_seq`; those that come
        from an archive say so. Raises `StoreError`."""

        def look(db: sqlite3.Connection) -> tuple[Found, list[tuple[object, ...]]]:
            found = search.find(db, asked, before=before_seq, after=after_seq, limit=limit)
            return found, db.execute(_SEALS).fetchall()

        found, rows = await self._store.read(look)
        await self._look_at(rows)
        if not self._archives:
            return _page(found, unread=self._wrong)
        if after_seq is not None:
            return await self._up(asked, found, after_seq, limit)
        return await self._down(asked, found, before_seq, limit)

    async def _look_at(self, rows: list[tuple[object, ...]]) -> None:
        """Which archives there are and may be believed. Raises `StoreError`."""
        if rows == self._seen:
            return
        outside = await asyncio.to_thread(outside_of, self._paths)
        sealed, wrong = await self._store.read(lambda db: seals.check(db, outside))
        every = await self._store.read(seals.archives_in)
        self._archives = [each for each in every if each.last <= sealed.last]
        after = f" after record {sealed.last}" if sealed.last else ""
        self._wrong = tuple(f"what is archived{after} is not read: {each.message}" for each in wrong[:1])
        with self._turn:
            self._open.clear()
        self._seen = rows

    async def _down(self, asked: Wanted, found: Found, before: int | None, limit: int) -> AuditPage:
        first = self._archives[0].first
        if found.more or len(found.rows) >= limit:
            return _page(found, first=first, more=True)
        high = min(found.first - 1 if found.first else self._archives[-1].last, self._archives[-1].last)
        high = min(high, before - 1) if before is not None else high
        low, high = asked.within(first, high)
        if high < low:
            return _page(found, first=first, unread=self._wrong)
        far = await asyncio.to_thread(self._search, asked, low, high, limit - len(found.rows), upwards=False)
        return _page(found, far, first=first, searched=far.searched, more=far.more, unread=self._wrong)

    async def _up(self, asked: Wanted, found: Found, after: int, limit: int) -> AuditPage:
        first, last = self._archives[0].first, self._archives[-1].last
        high = min(last, found.first - 1) if found.first else last
        if after >= high:
            return _page(found, first=first)
        low, high = asked.within(max(first, after + 1), high)
        if high < low:
            return _page(found, first=first)
        far = await asyncio.to_thread(self._search, asked, low, high, limit, upwards=True)
        if far.more or len(far.records) >= limit:
            none = Found([], far.searched, True, first, max(found.last, last))
            return _page(none, far, first=first, searched=far.searched, more=True, unread=self._wrong)
        rest = limit - len(far.records)
        found = await self._store.read(lambda db: search.find(db, asked, after=high, limit=rest))
        return _page(found, far, first=first, unread=self._wrong)

    # ---------------------------------------------------------------------------------------- in a thread

    def _search(self, asked: Wanted, low: int, high: int, limit: int, *, upwards: bool) -> _Far:
        """From `high` down to `low`, or the other way round."""
        deadline = self._clock() + BUDGET_S
        with self._turn:
            walk = _Walk(low, high, limit, upwards)
            for archive in self._archives if upwards else self._archives[::-1]:
                if archive.last < low or archive.first > high:
                    continue
                if (asked.since and archive.ended < asked.since) or (asked.until and archive.began > asked.until):
                    walk.passed(archive.first, archive.last)
                    continue
                if not self._in(archive, asked, walk, lambda: self._clock() > deadline):
                    return walk.stopped()
            return walk.ended()

    def _in(self, archive: AuditArchive, asked: Wanted, walk: _Walk, enough: Callable[[], bool]) -> bool:
        """Search one archive; whether to go on with the next one."""
        file = self._opened(archive)
        file.verify(enough)
        if not file.ready and not file.wrong:
            share = file.at * 100 // max(1, archive.bytes)
            walk.working = f"archive {archive.number} is compared with its seal: {share} %"
            return False
        for block in file.blocks if walk.upwards else file.blocks[::-1]:
            if block.last < walk.low or block.first > walk.high or walk.is_behind(block.first, block.last):
                continue
            rows = file.search(block, asked, walk.low, walk.high, walk.wants(), upwards=walk.upwards)
            if file.wrong:
                break
            walk.take(rows, archive.number)
            if not walk.wants():
                return False
            walk.passed(block.first, block.last)
            if enough():
                return False
        if file.wrong:
            walk.unread.append(
                f"records {archive.first} to {archive.last} are not read: their archive {archive.file} is not as it"
                f" was sealed: {file.wrong}"
            )
        walk.passed(archive.first, archive.last)
        return not enough()

    def _opened(self, archive: AuditArchive) -> Archived:
        found = self._open.pop(archive.number, None) or Archived(archive)
        self._open[archive.number] = found
        while len(self._open) > KEPT:
            self._open.popitem(last=False)
        return found


class _Walk:
    """How far a search over archives is, and what it has found."""

    def __init__(self, low: int, high: int, limit: int, upwards: bool) -> None:
        self.low, self.high, self.upwards = low, high, upwards
        self._limit = limit
        self._found: list[AuditRecord] = []
        self._searched = low - 1 if upwards else high + 1
        self.unread: list[str] = []
        self.working = ""

    def wants(self) -> int:
        """Records that it lacks."""
        return self._limit - len(self._found)

    def take(self, rows: Sequence[Row], number: int) -> None:
        self._found += [msgspec.structs.replace(to_record(row), archive=number) for row in rows]

    def passed(self, first: int, last: int) -> None:
        """All of these were looked at."""
        self._searched = min(self.high, last) if self.upwards else max(self.low, first)

    def is_behind(self, first: int, last: int) -> bool:
        return last <= self._searched if self.upwards else first >= self._searched

    def stopped(self) -> _Far:
        """Its time is over, or it has enough."""
        if not self.wants():
            self._searched = self._found[-1].seq
        return self.ended()

    def ended(self) -> _Far:
        more = self._searched < self.high if self.upwards else self._searched > self.low
        found = self._found if self.upwards else self._found[::-1]
        return _Far(found, self._searched, more, tuple(self.unread), self.working)


def _page(
    found: Found, far: _Far | None = None, *, first: int = 0, searched: int | None = None, more: bool | None = None,
    unread: tuple[str, ...] = (),
) -> AuditPage:  # fmt: skip
    """The records of archives, which are the older ones, and those of the database."""
    older = far.records if far is not None else []
    return AuditPage(
        records=(*older, *map(to_record, found.rows)), searched=found.searched if searched is None else searched,
        more=found.more if more is None else more, first=first or found.first, last=found.last,
        unread=(*unread, *(far.unread if far is not None else ())), working=far.working if far is not None else "",
    )  # fmt: skip
