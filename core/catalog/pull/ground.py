"""Where the bytes of pulls come to lie: in the tier of their model from the first one on, with room promised to them.

A pull outlives its daemon, and so does its promise: the next daemon makes it again before anything else is promised.
What a pull has fetched lies in `pulls/ID` of its tier, so that the end of it is another name for its files.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.catalog.objects import Objects
from core.catalog.pull.folder import here, tidy
from core.catalog.pull.rows import Row, replaced
from core.catalog.pull.work import Room
from core.catalog.tiers import Away, Reservation, Tiers
from core.errors import CorralError, NotFound
from core.nouns import PULL_ENDED, Pull, PullFile

log = logging.getLogger(__name__)


class Ground:
    """Only `Running` makes one."""

    def __init__(self, tiers: Tiers, objects: Objects) -> None:
        self._tiers, self._ledger, self._objects = tiers, tiers.ledger, objects

    async def find(self, id: str, name: str, files: Sequence[PullFile]) -> tuple[str, list[str]]:
        """Promise room to a pull that is about to begin, where new models land or where that spills to: the tier, and
        what is to be said of it, as sentences. Raises `NoRoom`, `Away`."""
        landing, size = await self._tiers.landing(), need(files)
        there = [file.name for file in files if file.stored]
        if not size:
            return landing, ["its bytes are stored already: nothing is fetched, and no second copy is kept"]
        notes = [f"{', '.join(there[:3])}: stored already, and not fetched"] if there else []
        space = await self._ledger.find(landing, size, id, name)
        if space.tier != landing:
            notes.append(f"{'; '.join(space.spilled)}: it comes to lie in {space.tier}")
        return space.tier, notes

    async def space(self, row: Row) -> Reservation | None:
        """The room of what of a pull is not stored yet, its tier being there; None: all of it is stored. Raises
        `NoRoom`, `Away`, `NotFound`."""
        pull, size = row.pull, need(row.pull.files)
        if not size:
            return None
        space = self._ledger.of(pull.id)
        if space is None:
            return await self._ledger.find(await self._tiers.landing(), size, pull.id, pull.name)
        await self._ledger.resize(space, size, pull.name)
        return space

    def room(self, pull: Pull, space: Reservation) -> Room:
        """The same for one run of it."""

        def wrote(count: int) -> None:
            space.wrote = count

        async def resize(size: int) -> None:
            await self._ledger.resize(space, size, pull.name)

        return Room(self.place(pull), wrote, resize, lambda: self._ledger.spare(space))

    async def again(self, row: Row) -> Row:
        """A pull of the daemon before that goes on, with what is here of it; its room is promised again."""
        pull, size, done = row.pull, need(row.pull.files), 0
        try:
            if not await self._tiers.here(pull.tier):
                done = await asyncio.to_thread(here, self.place(pull))
                row = replaced(row, bytes_done=done + sum(file.bytes for file in pull.files if file.stored))
            if size:
                await self._ledger.again(pull.tier, size, pull.id, pull.name, done)
        except NotFound as error:
            log.error("pull %s: %s", pull.id, error)
        return row

    async def away(self, pull: Pull) -> Away | None:
        """Why its tier takes nothing now; None if it does."""
        try:
            if why := await self._tiers.here(pull.tier):
                todo = f"mount it, then: corral models pulls resume {pull.id}"
                return Away(f"the tier {pull.tier} is not there", why, todo)
            await self._ledger.usable(pull.tier)
        except Away as error:
            return error
        except (CorralError, OSError) as error:
            log.error("pull %s: %s", pull.id, error)
        return None

    async def clear(self, pull: Pull) -> None:
        """Remove the bytes of one that is over, and then give its room back. A tier that is away keeps them until it
        is there again."""
        space = self._ledger.of(pull.id)  # none where all was stored when its daemon began: some may lie here still
        tier = space.tier if space is not None else pull.tier
        try:
            away = await self._tiers.here(tier)
        except (CorralError, OSError) as error:
            away = str(error)
        if not away:
            await asyncio.to_thread(shutil.rmtree, self._objects.folders[tier] / "pulls" / pull.id, True)
        if space is not None:
            await self._ledger.release(space)

    async def tidy(self, rows: Mapping[str, Row]) -> None:
        """Remove from each tier what belongs to no pull of `rows` that goes on: now, or when it is there again."""

        def tidied(tier: str) -> None:
            pulls = [row.pull for row in list(rows.values())]
            wanted = {pull.id for pull in pulls if pull.tier == tier and pull.state not in PULL_ENDED}
            tidy(self._objects.folders[tier] / "pulls", wanted)

        self._tiers.tidied = tidied
        for name in await self._tiers.names():
            if not await self._tiers.here(name):
                await asyncio.to_thread(tidied, name)

    def place(self, pull: Pull) -> Path:
        """The folder of a pull's bytes. Raises `NotFound`."""
        folder = self._objects.folders.get(pull.tier)
        if folder is None:
            raise NotFound(f"no tier {pull.tier!r}", f"pull {pull.id} was to lie there", "cancel it and begin anew")
        return folder / "pulls" / pull.id


def need(files: Sequence[PullFile]) -> int:
    """Bytes that are not stored already."""
    return sum(file.bytes for file in files if not file.stored)
