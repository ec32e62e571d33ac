"""How long versions take to load: expected from a tier's reading speed, and measured by each launch."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from core.catalog import references
from core.catalog import tables as versions
from core.catalog.objects import Objects
from core.catalog.tiers import cold, tables
from core.nouns import LoadTime, Model, TierModel
from core.store import Store


class Loading(NamedTuple):
    """A version that an engine is about to load. `cached`: what part of it the page cache has, where that is known."""

    model: Model
    cached: float | None


class Loads:
    """Only the catalog makes one."""

    def __init__(self, store: Store, objects: Objects, clock: Callable[[], float]) -> None:
        self._store, self._objects, self._clock = store, objects, clock

    async def begin(self, reference: str) -> Loading:
        """A launch of a version (`chat@3`) begins: it is used now. Raises `NotFound`."""
        now = self._clock()

        def note(db: sqlite3.Connection) -> Model:
            model = versions.find(db, references.split(reference))
            tables.used(db, list(versions.objects_of(model)), now)
            return model

        model = await self._store.transact(note)
        place = self._objects.path(model)
        own = [place.parent / part.name for part in model.files] if len(model.files) > 1 else [place]
        return Loading(model, await asyncio.to_thread(_cached, own, [part.bytes for part in model.files]))

    async def ready(self, loading: Loading, seconds: float, engine: str) -> None:
        """The launch was ready after so long."""
        model = loading.model
        load = tables.Load(tier=model.tier, at=self._clock(), seconds=seconds, bytes=model.bytes, cached=loading.cached)
        await self._store.transact(lambda db: tables.loaded(db, model.name, model.version, load, engine))

    async def times(self, wanted: str, tiers: Callable[[str], bool]) -> list[LoadTime]:
        """Of a version, from each tier that the asker sees. Raises `NotFound`, `Invalid`."""

        def look(db: sqlite3.Connection) -> list[LoadTime]:
            model = versions.find(db, references.split(wanted))
            return [each for row in tables.rows(db) if tiers(row.name) for each in [time(db, model, row)]]

        return await self._store.read(look)

    async def where_they_lie(self, models: Sequence[Model]) -> dict[str, LoadTime]:
        """By reference, what each takes from the tier that it lies in."""

        def look(db: sqlite3.Connection) -> dict[str, LoadTime]:
            rows = {row.name: row for row in tables.rows(db)}
            return {each.reference: time(db, each, rows[each.tier]) for each in models if each.tier in rows}

        return await self._store.read(look)

    async def of_tier(self, name: str, sees: Callable[[Model], bool]) -> list[TierModel]:
        """The versions that lie in a tier, as far as the asker sees them. Raises `NotFound`."""

        def look(db: sqlite3.Connection) -> list[TierModel]:
            row = tables.one(db, name)
            return [
                TierModel(
                    reference=model.reference, bytes=model.bytes, load=time(db, model, row),
                    used_at=tables.last_used(db, versions.object_of(model.files))[0],
                )
                for model in versions.versions(db)
                if model.tier == name and sees(model)
            ]  # fmt: skip

        return await self._store.read(look)


def time(db: sqlite3.Connection, model: Model, row: tables.Row) -> LoadTime:
    """How long a version takes to load from a tier."""
    last = tables.loads(db, model.name, model.version).get(row.name)
    return LoadTime(
        tier=row.name, here=model.tier == row.name, bytes=model.bytes,
        cold_s=model.bytes / row.cold if row.cold else None, warm_s=model.bytes / row.warm if row.warm else None,
        measured_s=last.seconds if last else None, measured_cached=last.cached if last else None,
        measured_at=last.at if last else None,
    )  # fmt: skip


def _cached(files: list[Path], sizes: list[int]) -> float | None:
    """In a thread: what part of these files the page cache has."""
    here = 0.0
    for file, size in zip(files, sizes, strict=True):
        try:
            part = cold.cached(file)
        except OSError:
            return None
        if part is None:
            return None
        here += part * size
    return here / sum(sizes) if sum(sizes) else None
