"""Tiers: the folders that models lie in, which of them are there, what they hold and by which rules."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from core.access import Gate
from core.catalog import tables as versions
from core.catalog.objects import Objects
from core.catalog.sweep import lying, sweep
from core.catalog.tiers import checking, cold, folder, speed, tables
from core.catalog.tiers.inthread import in_a_thread
from core.catalog.tiers.ledger import Away, Disk, Ledger
from core.catalog.tiers.living import Living
from core.catalog.tiers.rules import Rules, ruled, said, told
from core.errors import Conflict, CorralError, Invalid, NotFound
from core.events import Bus
from core.nouns import HOME, Actor, Tier, TierChecked
from core.paths import Paths
from core.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")
LOOK_S = 2.0
"""Between two looks at whether the tiers are there."""
ANSWER_S = 5.0
"""A folder that has not answered for so long is not there: a file server that is gone answers nothing at all."""
MOST = 32
"""Tiers, at most."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Tiers:
    """The service that owns the noun. `engines`: uid and gid of the account that opens models, where that is another
    one. `tell` has those who watch see what a name means now."""

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
        await self.publish(row.name)
        names = {each.partition("@")[0] for each in await self._store.read(lambda db: tables.held(db, row.name))}
        for name in sorted(names):
            await self._tell(name)

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
        rotted while it took no changes is set aside."""
        async with self._objects.lock:
            for sha256 in await self._store.read(lambda db: tables.rotten(db, name)):
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

    # ---------------------------------------------------------------------------------------- what is there

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

    async def ls(self) -> list[Tier]:
        """All, `home` first."""
        return [await self._shown(row) for row in await self._store.read(tables.rows)]

    async def get(self, name: str) -> Tier:
        """Raises `NotFound`."""
        return await self._shown(await self._store.read(lambda db: tables.one(db, name)))

    async def landing(self) -> str:
        """The tier where new models land."""
        return await self._store.read(tables.landing)

    async def room(self) -> tuple[int, str]:
        """What a new model may take at most (bytes), of the tier where it would land or of one to which that spills;
        and why it could land in none of them."""
        most, tried, name = 0, list[Tier](), await self.landing()
        while name and name not in [tier.name for tier in tried]:
            await self.here(name)
            tried.append(tier := await self.get(name))
            most, name = max(most, tier.free_bytes), tier.spill
        gone = [f"{tier.name} is {tier.state} ({tier.reason})" for tier in tried if tier.state != "there"]
        return most, ", ".join(gone) if len(gone) == len(tried) else ""

    async def _shown(self, row: tables.Row) -> Tier:
        (objects, held), promised = await self._store.read(
            lambda db: (tables.stored(db, row.name), tables.reserved(db, row.name))
        )
        disk, only_read, memory = Disk(0, 0, 0), False, False
        why = row.away
        if not why:
            try:
                disk, only_read, memory = await asyncio.to_thread(self._disk, row.name)
            except OSError as error:
                why = error.strerror or str(error)
        left = 0 if why or only_read else self.ledger.left(disk)
        if row.capacity:
            left = min(left, max(0, row.capacity - held - promised - disk.aside))
        path = self._objects.folders.get(row.name, Path(row.path))
        return Tier(
            name=row.name, path=str(path), state="away" if why else "read-only" if only_read else "there",
            reason=why or (f"{path} takes no changes" if only_read else ""), capacity=row.capacity,
            landing=row.landing, spill=row.spill, demote_days=row.demote_days, demote_to=row.demote_to,
            objects=objects, stored_bytes=held, reserved_bytes=promised, aside_bytes=disk.aside, free_bytes=left,
            disk_free=disk.free, memory=memory, cold=None if memory else row.cold, warm=row.warm,
            measured_at=row.measured_at, demoted_at=row.demoted_at, added_at=row.added_at, added_by=row.added_by,
        )  # fmt: skip

    def _disk(self, name: str) -> tuple[Disk, bool, bool]:
        """What it has, whether it takes no changes, and whether it lies in memory."""
        path = self._objects.folders[name]
        if name == HOME:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return self.ledger.disk(name), folder.read_only(path), cold.in_memory(path)

    async def publish(self, name: str) -> None:
        """Have those who watch see a tier as it is now."""
        try:
            self._bus.publish("tier", f"tier:{name}", await self.get(name))
        except NotFound:
            self._bus.publish("tier.gone", f"tier:{name}")

    # ---------------------------------------------------------------------------------------- change

    async def add(
        self, actor: Actor, request: str, name: str, path: str, rules: Rules, *, take_over: bool = False
    ) -> Tier:
        """Make a folder a tier, or with `take_over` put the marker of the tier back that lies there by its name. Raises
        `Invalid`, `Conflict`, `Failed`; `NotAllowed`, recorded."""
        subject = f"tier:{name}"
        try:
            self._gate.require(actor, "tiers.manage", subject)
            if not _NAME.fullmatch(name) or name == HOME:
                raise Invalid(
                    f"{name[:80]!r} is no name for a tier",
                    "it has 1 to 63 of a-z, 0-9, dot, dash and underscore, and home is taken",
                )
            place = Path(path)
            known = self._rows.get(name)
            if known is not None and known.path != path:
                known = None
            await asyncio.to_thread(folder.check, place, self._others(name if known else ""), self._engines)
            if known is None:
                await asyncio.to_thread(folder.check_new, place)
            else:
                await self._lost(known, take_over=take_over)
        except CorralError as error:
            await self._gate.refuse(actor, "tiers.add", subject, request, str(error))
            raise
        if known is not None:
            return await self._restore(actor, request, known)
        row = tables.Row(
            name=name, id=secrets.token_hex(16), path=str(place), added_at=self._clock(), added_by=actor.name
        )
        effect = await self._gate.intent(actor, "tiers.add", subject, request, after={"path": path})
        try:
            marked = folder.Marked(row.id, name, self._store.database_id)
            await asyncio.to_thread(folder.mark, place, marked, take_over=take_over, engines=self._engines)

            def put(db: sqlite3.Connection) -> tuple[None, object, object]:
                there = tables.rows(db)
                if len(there) >= MOST or any(each.name == name for each in there):
                    raise Conflict(
                        f"a tier {name!r} exists" if len(there) < MOST else f"there are {MOST} tiers already"
                    )
                tables.put(db, row)
                ruled(db, row, rules)
                return None, None, {"path": path, **said(rules)}

            try:
                await self._gate.act(actor, "tiers.rules", subject, request, put, permission="tiers.manage")
            except BaseException:
                await asyncio.to_thread(folder.unmark, place)
                raise
        except Exception as error:
            await self._gate.outcome(effect, "failed", reason=str(error))
            raise
        await self._gate.outcome(effect, "done", after={"path": path})
        await self._reread()
        await self.tidy(name)
        await self.publish(name)
        return await self.get(name)

    async def _lost(self, row: tables.Row, *, take_over: bool) -> None:
        """Raises `Conflict` for a tier whose marker is there, or cannot be put back."""
        if not (why := await self._why_away(row)):
            raise Conflict(f"a tier {row.name!r} exists", f"it lies in {row.path} already")
        sizes = await self._store.read(lambda db: tables.objects(db, row.name))
        parts = await self._store.read(lambda db: _parts(db, set(sizes)))
        looked = in_a_thread(lambda: checking.lacking(self._objects, row.name, sizes, parts))
        await asyncio.wait({looked}, timeout=ANSWER_S)
        if not looked.done():
            raise Away(f"the tier {row.name} is not there", f"{row.path} has not answered for {ANSWER_S:.0f} s")
        if gone := looked.result():
            raise Conflict(
                f"the marker of {row.name} cannot be put back", f"{why}; what should lie there does not: {gone[0]}",
                "mount it; that is all that it needs if its files are on another disk",
            )  # fmt: skip
        if not sizes:
            raise Conflict(
                f"the marker of {row.name} cannot be put back", f"{why}; it held nothing by which it could be known",
                f"forget it and add it anew: corral tiers rm {row.name}",
            )  # fmt: skip
        if not take_over:
            raise Conflict(
                f"{row.name} has lost its marker", f"{why}; all {len(sizes)} that it holds lie there",
                "say --take-over: its marker is put back", take_over="lost",
            )  # fmt: skip

    async def _restore(self, actor: Actor, request: str, row: tables.Row) -> Tier:
        """Put a tier's marker back. Raises `Conflict`, `Failed`."""
        marked = folder.Marked(row.id, row.name, self._store.database_id)
        effect = await self._gate.intent(
            actor, "tiers.add", f"tier:{row.name}", request, before={"away": row.away}, after={"path": row.path}
        )  # fmt: skip
        try:
            path = Path(row.path)
            await asyncio.to_thread(folder.mark, path, marked, take_over=True, engines=self._engines)
        except Exception as error:
            await self._gate.outcome(effect, "failed", reason=str(error))
            raise
        await self._gate.outcome(effect, "done", after={"path": row.path})
        await self.here(row.name)
        return await self.get(row.name)

    def _others(self, but: str = "") -> list[tuple[str, Path]]:
        """What a new tier may be neither in nor around."""
        tiers = [(f"the tier {name}", path) for name, path in self._objects.folders.items() if name not in (HOME, but)]
        return [("Corral's own folder", self._paths.root), ("Corral's own folder", self._paths.state), *tiers]

    async def change(self, actor: Actor, request: str, name: str, rules: Rules) -> Tier:
        """Other rules for a tier. Raises `NotFound`, `Invalid`, `Conflict`."""

        def work(db: sqlite3.Connection) -> tuple[None, object, object]:
            old = tables.one(db, name)
            new = ruled(db, old, rules)
            return None, told(old, rules), told(new, rules)

        await self._gate.act(actor, "tiers.rules", f"tier:{name}", request, work, permission="tiers.manage")
        before = {row.name for row in self._rows.values() if row.landing}
        await self._reread()
        for each in {name, *(before if rules.landing else ())}:
            await self.publish(each)
        return await self.get(name)

    async def rm(self, actor: Actor, request: str, name: str) -> int:
        """Forget a tier that holds nothing; the folder stays, without its marker. Gives the bytes of objects that stay
        in it: old copies that could not be removed, and what belongs to another database. Raises `Conflict` naming what
        it holds."""

        def work(db: sqlite3.Connection) -> tuple[tables.Row, object, object]:
            row = tables.one(db, name)
            if name == HOME:
                raise Conflict("home stays", "it is the tier beside the database")
            if there := tables.held(db, name):
                more = f" and {len(there) - 5} more" if len(there) > 5 else ""
                raise Conflict(f"the tier {name} holds {', '.join(there[:5])}{more}", todo="move or remove these first")
            if tables.reserved(db, name):
                raise Conflict(
                    f"something is on its way to {name}", ", ".join(tables.awaited(db, name)),
                    "wait for it, or cancel it (corral models pulls, corral models moves)",
                )  # fmt: skip
            tables.drop(db, name)
            return row, {"path": row.path}, None

        async with self._objects.lock:
            row = await self._gate.act(actor, "tiers.rm", f"tier:{name}", request, work, permission="tiers.manage")
            path, left = self._objects.folders[name], 0
            if not await self._why_away(row):
                try:
                    left = await asyncio.to_thread(self._left, name)
                    await asyncio.to_thread(folder.unmark, path)
                except OSError as error:
                    log.warning("the marker in %s stays: %s", path, error)
            await self._reread()
        await self.publish(name)
        for each in self._rows:
            await self.publish(each)
        return left

    def _left(self, name: str) -> int:
        return sum(self._objects.left(each.name, name) for each in lying(self._objects.folders[name]))

    # ---------------------------------------------------------------------------------------- look closer

    async def check(self, name: str) -> TierChecked:
        """Whether all is as it should be: marker, owner, modes, each object with its size, and what is not known.
        Raises `NotFound`."""
        row = await self._store.read(lambda db: tables.one(db, name))
        await self._see(self._rows[name], await self._why_away(row), tidy=True)
        tier = await self.get(name)
        async with self._objects.lock:
            sizes = await self._store.read(lambda db: tables.objects(db, name))
            parts = await self._store.read(lambda db: _parts(db, set(sizes)))
            found = await asyncio.to_thread(
                checking.check, tier, self._objects, sizes, parts, self._memory(name), self._store.database_id,
                self._engines, self.ledger.live,
            )  # fmt: skip
        return found

    async def measure(self, actor: Actor, request: str, name: str) -> Tier:
        """Measure how fast it is read. Raises `NotFound`, `NoRoom`, `Away`."""
        self._gate.require(actor, "tiers.manage", f"tier:{name}")
        if why := await self.here(name):
            raise Away(f"the tier {name} is not there", why)
        tier = await self.get(name)
        found = await speed.measured(self.ledger, tier)

        def put(db: sqlite3.Connection) -> tuple[None, object, object]:
            row = tables.one(db, name)
            new = msgspec.structs.replace(row, cold=found.cold, warm=found.warm, measured_at=self._clock())
            tables.put(db, new)
            return None, None, {"cold": round(found.cold) if found.cold else None, "warm": round(found.warm)}

        await self._gate.act(actor, "tiers.measure", f"tier:{name}", request, put, permission="tiers.manage")
        await self.publish(name)
        return await self.get(name)


def _parts(db: sqlite3.Connection, wanted: set[str]) -> dict[str, dict[str, int]]:
    """The files of split models among these objects: name and bytes."""
    return {
        versions.object_of(model.files): {part.name: part.bytes for part in model.files}
        for model in versions.versions(db)
        if len(model.files) > 1 and versions.object_of(model.files) in wanted
    }
