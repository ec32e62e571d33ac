"""Tiers: the folders that models lie in, what they hold and by which rules."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import sqlite3
from pathlib import Path

import msgspec

from core.catalog.sweep import lying
from core.catalog.tiers import checking, cold, folder, lost, speed, tables, watching
from core.catalog.tiers.ledger import Away, Disk
from core.catalog.tiers.rules import Rules, ruled, said, told
from core.errors import Conflict, CorralError, Invalid, NotFound
from core.nouns import HOME, Actor, Tier, TierChecked

log = logging.getLogger(__name__)
MOST = 32
"""Tiers, at most."""
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


class Tiers(watching.Watching):
    """The service that owns the noun."""

    # ---------------------------------------------------------------------------------------- what is there

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
        disk, only_read, memory = Disk(0, 0, 0, 0), False, False
        why = row.away
        if not why:
            try:
                disk, only_read, memory = await asyncio.to_thread(self._disk, row.name)
            except OSError as error:
                why = error.strerror or str(error)
        takes = not why and not only_read
        left, bound = (self.ledger.left(disk), "disk") if takes else (0, "")
        if takes and row.capacity and (most := max(0, row.capacity - held - promised - disk.aside)) < left:
            left, bound = most, "capacity"
        path = self._objects.folders.get(row.name, Path(row.path))
        return Tier(
            name=row.name, path=str(path), state="away" if why else "read-only" if only_read else "there",
            reason=why or (f"{path} takes no changes" if only_read else ""), capacity=row.capacity,
            landing=row.landing, spill=row.spill, demote_days=row.demote_days, demote_to=row.demote_to,
            objects=objects, stored_bytes=held, reserved_bytes=promised, aside_bytes=disk.aside, free_bytes=left,
            bound=bound, disk_free=disk.free, disk_bytes=disk.total, memory=memory,
            cold=None if memory else row.cold, warm=row.warm, measured_at=row.measured_at, demoted_at=row.demoted_at,
            added_at=row.added_at, added_by=row.added_by,
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
                if not (why := await self._why_away(known)):
                    raise Conflict(f"a tier {name!r} exists", f"it lies in {path} already")
                await lost.look(self._store, self._objects, known, why, take_over=take_over, answer_s=watching.ANSWER_S)
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
            parts = await self._store.read(lambda db: tables.parts(db, set(sizes)))
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
