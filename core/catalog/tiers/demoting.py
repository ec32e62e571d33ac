"""What nobody has launched for long makes room: once a day, by a tier's rule, moved to the tier that the rule names."""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Callable

import msgspec

from core.access import Gate
from core.catalog import tables as versions
from core.catalog.tiers import tables
from core.catalog.tiers.moving import Moves
from core.catalog.tiers.service import Tiers
from core.catalog.uses import Uses
from core.errors import Conflict, CorralError
from core.nouns import CORRAL, Actor, Demoted
from core.store import Store

log = logging.getLogger(__name__)

DAY_S = 86400.0
LOOK_S = 600.0
"""Between two looks whether the day is over."""


class Demoting:
    """Only the catalog makes one. `uses` tells who needs a version."""

    def __init__(
        self, store: Store, gate: Gate, tiers: Tiers, moves: Moves, *, clock: Callable[[], float],
        uses: Uses,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._tiers, self._moves = store, gate, tiers, moves
        self._clock, self._uses = clock, uses

    async def run(self) -> None:
        """Each day, until cancelled."""
        while True:
            try:
                await self.look()
            except CorralError as error:
                log.error("nothing is demoted now: %s", error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Demote in each tier whose day is over."""
        for row in await self._store.read(tables.rows):
            due = row.demote_days and self._clock() - (row.demoted_at or 0.0) >= DAY_S
            if due and not row.away:
                try:
                    await self.demote(CORRAL, f"auto-{secrets.token_hex(5)}", row.name, dry_run=False)
                except CorralError as error:
                    log.error("nothing is demoted in %s: %s", row.name, error)

    async def demote(self, actor: Actor, request: str, name: str, *, dry_run: bool) -> Demoted:
        """Move out of a tier, one after the other, what was not launched for the days of its rule and runs nowhere.
        The run is recorded, and so is each move. Raises `NotFound`, and `Conflict` for a tier without such a rule."""
        self._gate.require(actor, "tiers.manage", f"tier:{name}")
        row = await self._store.read(lambda db: tables.one(db, name))
        if not row.demote_days:
            raise Conflict(
                f"{name} has no rule by which anything is demoted",
                todo=f"corral tiers set {name} --demote-after 30 --demote-to TIER",
            )
        before = self._clock() - row.demote_days * DAY_S
        idle = await self._store.read(lambda db: self._idle(db, name, before))
        if dry_run:
            return Demoted(tier=name, dry_run=True, moved=tuple(idle))
        why, moved, failed = f"not launched for {_days(row.demote_days)}", list[str](), list[str]()
        for reference in idle:
            try:
                job = await self._moves.start(CORRAL, request, reference, row.demote_to, why=why)
                job = await self._moves.ended(job.id)
                if job.state == "done":
                    moved.append(reference)
                else:
                    failed.append(f"{reference}: {job.error.what if job.error else job.state}")
            except CorralError as error:
                failed.append(f"{reference}: {error}")
        found = Demoted(tier=name, dry_run=False, moved=tuple(moved), failed=tuple(failed))

        def put(db: sqlite3.Connection) -> tuple[None, object, object]:
            tables.put(db, msgspec.structs.replace(tables.one(db, name), demoted_at=self._clock()))
            return None, None, {"to": row.demote_to, "moved": moved, "failed": failed}

        await self._gate.act(actor, "tiers.demote", f"tier:{name}", request, put, permission="tiers.manage")
        await self._tiers.publish(name)
        return found

    def _idle(self, db: sqlite3.Connection, tier: str, before: float) -> list[str]:
        """The versions in a tier that were launched last, or else stored, before that moment."""
        found, seen, there = list[str](), set[str](), versions.versions(db)
        for model in there:
            own = versions.object_of(model.files)
            if model.tier != tier or model.state != "stored" or own in seen:
                continue
            used_at, added_at = tables.last_used(db, own)
            if (used_at or added_at) >= before:
                continue
            made = set(versions.made_of(db, own))
            same = [each for each in there if (each.name, each.version) in made]
            if not any(need.runs for each in same for need in self._uses.of(db, each)):
                found.append(model.reference)
                seen.add(own)
        return found


def _days(days: float) -> str:
    return "1 day" if days == 1 else f"{days:g} days"
