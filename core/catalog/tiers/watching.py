"""Which tiers are there: looked at every two seconds and whenever somebody asks; one that is back is tidied up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from core.access import Gate
from core.catalog.objects import Objects
from core.catalog.sweep import lying, sweep
from core.catalog.tiers import cold, folder, tables
from core.catalog.tiers.inthread import in_a_thread
from core.catalog.tiers.ledger import Ledger
from core.catalog.tiers.living import Living
from core.errors import CorralError
from core.events import Bus
from core.nouns import HOME
from core.paths import Paths
from core.store import Store

log = logging.getLogger(__name__)

LOOK_S = 2.0
"""Between two looks at whether the tiers are there."""
ANSWER_S = 5.0
"""A folder that has not answered for so long is not there: a file server that is gone answers nothing at all."""


class Watching:
    """What `Tiers` knows of its folders; its verbs change which there are. `engines`: uid and gid of the account that
    opens models, where that is another one. `tell` has those who watch see what a name means now."""

    def __init__(
        self, store: Store, gate: Gate, objects: Objects, paths: Paths, bus: Bus, *, clock: Callable[[], float],
        engines: tuple[int, int] | None, tell: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._objects, self._paths, self._bus = store, gate, objects, paths, bus
        self._clock, self._engines, self._tell = clock, engines, tell
        self._rows: dict[str, tables.Row] = {}
        self._looks: dict[str, asyncio.Future[str]] = {}
        """Folders that have not answered yet."""
        self._closed: set[str] = set()
        """Tiers that took no changes when they were last looked at."""
        self._living = Living(store.database_id)
        self.ledger = Ledger(store, objects, self._memory, clock)
        self.tidied: Callable[[str], None] = lambda name: None
        """Called in a thread when what is left over is removed from a tier: whose jobs outlive a daemon removes his."""

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Read which tiers there are, look which are there, and remove what a dead daemon left in them."""
        self._living.hold()
        await self._store.transact(tables.release_all)
        await self._reread()
        for row in list(self._rows.values()):
            await self._see(row, await self._why_away(row))
        for row in list(self._rows.values()):
            if not row.away:
                await self.tidy(row.name)
                await self._only_warm(row)

    async def run(self) -> None:
        """Look whether they are there, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._living.hold()
            for row in list(self._rows.values()):
                if row.name == HOME:
                    continue
                try:
                    if not await self.here(row.name):
                        await self.opened(row.name)
                except CorralError as error:
                    log.error("tier %s: %s", row.name, error)
                except OSError as error:
                    log.error("tier %s: %s", row.name, error)

    def close(self) -> None:
        self._living.close()

    async def _only_warm(self, row: tables.Row) -> None:
        """An older program measured a cold speed also where there is none."""
        try:
            memory = bool(row.cold) and await asyncio.to_thread(cold.in_memory, self._objects.folders[row.name])
        except OSError:
            return
        if memory:
            await self._store.transact(lambda db: tables.put(db, msgspec.structs.replace(row, cold=None)))
            await self._reread()

    async def opened(self, name: str) -> None:
        """Remove from a tier that takes changes again what had to stay in it while it took none. Raises OSError."""
        path = self._objects.folders.get(name)
        if path is None:
            return
        pending = in_a_thread(lambda: folder.read_only(path))
        done, _ = await asyncio.wait({pending}, timeout=ANSWER_S)
        if not done:
            return
        if pending.result():
            self._closed.add(name)
        elif name in self._closed:
            await self.tidy(name)
            self._closed.discard(name)

    async def _reread(self) -> None:
        self._rows = {row.name: row for row in await self._store.read(tables.rows)}
        for name, row in self._rows.items():
            if name != HOME:
                self._objects.folders[name] = Path(row.path)
        for name in self._objects.folders.keys() - self._rows.keys():
            del self._objects.folders[name]

    async def _see(self, row: tables.Row, why: str, *, tidy: bool = False) -> None:
        """Take note of whether a tier is there."""
        if why == row.away:
            return
        came, went = not why, not row.away
        await self._store.transact(lambda db: tables.away(db, row.name, why))
        await self._reread()
        if went or came:
            log.warning("tier %s is %s", row.name, f"away: {why}" if why else "there again")
        if came and tidy:
            await self.tidy(row.name)
            await self._tidy_others(row.name)
        await self.publish(row.name)
        names = {each.partition("@")[0] for each in await self._store.read(lambda db: tables.held(db, row.name))}
        for name in sorted(names):
            await self._tell(name)

    async def _tidy_others(self, name: str) -> None:
        """What lies elsewhere may have been kept as the last copy until this tier came."""
        for row in list(self._rows.values()):
            if not row.away and row.name != name:
                try:
                    await self.tidy(row.name)
                except OSError as error:
                    log.error("tier %s: %s", row.name, error)

    async def _why_away(self, row: tables.Row) -> str:
        if row.name == HOME:
            return ""
        pending = self._looks.get(row.name)
        if pending is None:
            pending = self._looks[row.name] = in_a_thread(lambda: folder.look(Path(row.path), row.id))
        done, _ = await asyncio.wait({pending}, timeout=ANSWER_S)
        if not done:
            return f"{row.path} has not answered for {ANSWER_S:.0f} s"
        self._looks.pop(row.name, None)
        return pending.result()

    async def tidy(self, name: str) -> None:
        """Remove from a tier what no job and no version needs: the rests of what broke off, and old copies. What has
        rotted while it took no changes is set aside, and so is what was to mend it elsewhere and was not recorded."""
        async with self._objects.lock:
            for sha256 in await self._store.read(tables.rotten):
                if self._objects.place(sha256, name).exists():
                    with contextlib.suppress(OSError):  # it takes no changes now
                        await asyncio.to_thread(self._objects.set_aside, sha256, name)
            places = await self._store.read(tables.places)
            away = {row.name for row in self._rows.values() if row.away}
            await asyncio.to_thread(self._sweep, name, places, away)

    def _sweep(self, name: str, places: dict[str, str], away: set[str]) -> None:
        path = self._objects.folders[name]
        incoming = path / "incoming"
        for each in list(incoming.iterdir()) if incoming.is_dir() else ():
            if each.name.partition(".")[0] not in self.ledger.live:
                shutil.rmtree(each, ignore_errors=True) if each.is_dir() else each.unlink(missing_ok=True)
        wanted = {sha256 for sha256, tier in places.items() if tier == name}
        for copy in lying(path):
            other = places.get(copy.name, name)
            # The last copy never goes: one whose own place is out of reach, or empty, stays here.
            if other != name and (other in away or not self._objects.place(copy.name, other).exists()):
                wanted.add(copy.name)
        sweep(path, self._store.database_id, wanted, self._memory(name))
        self.tidied(name)

    def _memory(self, name: str) -> Path:
        return (
            self._paths.models.with_name("objects.json")
            if name == HOME
            else self._objects.folders[name] / folder.MEMORY
        )

    # ---------------------------------------------------------------------------------------- asked

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        return [f"the tier {row.name} is away: {row.away}" for row in self._rows.values() if row.away]

    async def here(self, name: str) -> str:
        """Why a tier is not there at this moment; "" if it is. Raises `NotFound`."""
        row = self._rows[name] if name in self._rows else await self._store.read(lambda db: tables.one(db, name))
        why = await self._why_away(row)
        await self._see(row, why, tidy=True)
        return why

    async def look(self, *names: str) -> None:
        """Look now whether these tiers are there, else all: an answer must not be older than the question. One that has
        not answered before is not waited for once more."""
        rows = [self._rows[name] for name in names or list(self._rows) if name in self._rows]
        asked = [self.here(row.name) for row in rows if not (row.away and row.name in self._looks)]
        await asyncio.gather(*asked, return_exceptions=True)  # what goes wrong in tidying, the watch logs

    async def names(self) -> list[str]:
        return list(self._rows)

    async def publish(self, name: str) -> None:
        """Have those who watch see a tier as it is now."""
        raise NotImplementedError
