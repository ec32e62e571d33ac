"""What of a pull is in the store already, by the hashes that are said beforehand: that is not fetched.

Whoever names a hash has not shown that he may have the bytes. They are given without being fetched where a hub that
everybody may ask vouches for them, or to one who sees a model that is made of them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec

from core.access import Gate
from core.catalog import tables
from core.catalog.objects import Objects
from core.catalog.taking import Stored
from core.nouns import Actor, ModelFile, PullFile
from core.store import Store


class Shelf:
    """The store as one actor's pull sees it. `public`: everybody may fetch these bytes."""

    def __init__(self, store: Store, gate: Gate, objects: Objects, actor: Actor, *, public: bool) -> None:
        self._store, self._gate, self._objects, self._actor, self._public = store, gate, objects, actor, public

    async def marked(self, files: Sequence[PullFile]) -> tuple[PullFile, ...]:
        """The files of one model, and what goes beside it, with what of them need not be fetched."""
        places = await self._places(files)
        return tuple(msgspec.structs.replace(file, stored=file.name in places) for file in files)

    async def places(self, files: Sequence[PullFile]) -> dict[str, Stored]:
        """By its plain name, where each of the files marked so lies now."""
        found = await self._places(files)
        return {
            file.name.rpartition("/")[2]: Stored(found[file.name], file.sha256)
            for file in files
            if file.stored and file.name in found
        }

    async def why_not(self, files: Sequence[PullFile]) -> list[str]:
        """Why bytes that are known here are fetched all the same, as sentences."""
        groups = {sha256: parts for sha256, parts in _objects(files).items() if not all(part.stored for part in parts)}
        known = await self._store.read(lambda db: tables.states(db, self._seen(db, list(groups))))
        said = []
        for sha256, (state, tier) in known.items():
            name = groups[sha256][0].name
            if state == "away":
                said.append(f"{name}: its bytes lie on {tier}, which is away, so that they are fetched")
            elif state != "stored":
                said.append(f"{name}: its stored bytes are {state}, so that they are fetched, which mends that")
        return said

    async def _places(self, files: Sequence[PullFile]) -> dict[str, Path]:
        groups = _objects(files)
        sizes = {sha256: sum(part.bytes for part in parts) for sha256, parts in groups.items()}
        lying = await self._store.read(lambda db: tables.lying(db, self._seen(db, list(groups))))
        there = await asyncio.to_thread(self._objects.present, lying, sizes)
        found: dict[str, Path] = {}
        for sha256 in there:
            place, parts = self._objects.place(sha256, lying[sha256]), groups[sha256]
            found |= {part.name: place / part.name.rpartition("/")[2] if len(parts) > 1 else place for part in parts}
        return found

    def _seen(self, db: sqlite3.Connection, objects: list[str]) -> list[str]:
        """Those of these objects that he may have without fetching them."""
        if self._public:
            return objects
        may = self._gate.may
        return [
            sha256
            for sha256 in objects
            if any(may(self._actor, "models.read", f"model:{name}") for name, _ in tables.made_of(db, sha256))
        ]


def _objects(files: Sequence[PullFile]) -> dict[str, list[PullFile]]:
    """What the files are stored as, those whose hash nobody has said left out."""
    own = [file for file in files if not file.kind]
    groups = [own, *([file] for file in files if file.kind)]
    return {_object(parts): parts for parts in groups if parts and all(part.sha256 for part in parts)}


def _object(parts: Sequence[PullFile]) -> str:
    return tables.object_of([ModelFile(name=part.name, bytes=part.bytes, sha256=part.sha256) for part in parts])
