"""What nothing needs goes: versions without an alias that no deployment wants, and bytes that belong to nothing."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from core.access import Gate
from core.catalog import agreed, tables
from core.catalog.objects import Objects
from core.catalog.sweep import remove
from core.catalog.uses import Uses
from core.errors import Conflict
from core.nouns import Actor, Collected, Gone, Model
from core.store import Store

log = logging.getLogger(__name__)

QUARANTINE_S = 30 * 86400
"""Rotten bytes are kept so long, for somebody who wants to look at them."""


class Collecting:
    """Only the catalog makes one."""

    def __init__(
        self, store: Store, gate: Gate, objects: Objects, uses: Uses, *, clock: Callable[[], float],
        tell: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._objects, self._uses = store, gate, objects, uses
        self._clock, self._tell = clock, tell

    async def gc(
        self, actor: Actor, request: str, *, dry_run: bool, older_than_s: float = 0, seen: Sequence[str] | None = None
    ) -> Collected:
        """Remove the versions that no alias means and no deployment needs, imported longer than `older_than_s` ago,
        of the models on which the actor may; and rotten bytes after 30 days, or at once where the same object was
        healed since. With `dry_run` only tell. Raises `Changed` where that is not what was `seen`, by its names."""
        self._gate.require_somewhere(actor, "models.gc")
        before = self._clock() - older_than_s
        gone, kept = await self._store.read(lambda db: self._look(db, actor, before))
        aside, waits = await self._aside() if self._gate.may(actor, "models.gc", "model:*") else ([], [])
        told = [self._gone(model, size, why) for model, size, why in gone]
        told += [Gone(what="quarantined", name=path.name, bytes=size, why=why) for path, size, why in aside]
        if not dry_run:
            agreed.to_go(seen, [each.name for each in told])
            done = []
            for (model, _, _), what in zip(gone, told, strict=False):
                if await self._remove(actor, request, model):
                    done.append(what)
            for (path, _, _), what in zip(aside, told[len(gone) :], strict=True):
                if await asyncio.to_thread(_removed, path):
                    done.append(what)
            told = done
        stays = [self._gone(model, 0, why) for model, why in kept]
        stays += [Gone(what="quarantined", name=path.name, bytes=0, why=why) for path, _, why in waits]
        return Collected(
            dry_run=dry_run, gone=tuple(told), kept=tuple(stays),
            bytes=sum(each.bytes for each in told),
        )  # fmt: skip

    def _look(
        self, db: sqlite3.Connection, actor: Actor, before: float
    ) -> tuple[list[tuple[Model, int, str]], list[tuple[Model, str]]]:
        """Versions that may go with what that frees (bytes), and those that nothing serves and that stay, with why."""
        gone: list[tuple[Model, int, str]] = []
        kept: list[tuple[Model, str]] = []
        left: dict[str, int] = {}
        for model in tables.versions(db):
            if not self._gate.may(actor, "models.read", f"model:{model.name}") or self._uses.of(db, model):
                continue
            if not self._gate.may(actor, "models.gc", f"model:{model.name}"):
                kept.append((model, f"{actor.name} may not models.gc on model:{model.name}"))
            elif model.aliases:
                kept.append((model, tables.meaning(model)))
            elif model.state == "away":
                kept.append((model, f"its tier {model.tier} is not there"))
            elif model.imported_at > before:
                kept.append((model, "it is not old enough"))
            else:
                freed = 0
                for sha256, size in tables.objects_of(model).items():
                    left[sha256] = left.get(sha256, len(tables.made_of(db, sha256))) - 1
                    freed += 0 if left[sha256] else size
                gone.append((model, freed, "no alias means it and no deployment wants it"))
        return gone, kept

    def _gone(self, model: Model, size: int, why: str) -> Gone:
        return Gone(what="version", name=model.reference, bytes=size, why=why)

    async def _remove(self, actor: Actor, request: str, model: Model) -> bool:
        """Whether it went: it may have come into use meanwhile."""

        def work(db: sqlite3.Connection) -> tuple[Sequence[tuple[str, str]], object, object]:
            now = [each for each in tables.versions(db) if (each.name, each.version) == (model.name, model.version)]
            if not now or now[0].aliases or self._uses.of(db, now[0]):
                raise Conflict(f"{model.reference} is needed again", "it came into use meanwhile")
            free = tables.drop(db, now[0], self._clock(), actor.name)
            return free, {"version": model.version, "sha256": model.sha256, "bytes": model.bytes}, None

        async with self._objects.lock:
            try:
                free = await self._gate.act(actor, "models.gc", f"model:{model.name}", request, work)
            except Conflict:
                return False
            for sha256, tier in free:
                await asyncio.to_thread(self._objects.remove, sha256, tier)
        await self._tell(model.name)
        return True

    async def _aside(self) -> tuple[list[tuple[Path, int, str]], list[tuple[Path, int, str]]]:
        """What lies in quarantine, with its bytes: what goes, and what stays for now, each with why."""
        lying = await asyncio.to_thread(self._rotten)
        objects = {path.name.partition("-")[0] for path, _, _ in lying}
        whole = await self._store.read(lambda db: tables.states(db, objects))
        goes, stays = [], []
        for path, size, since in lying:
            if whole.get(path.name.partition("-")[0], ("", ""))[0] == "stored":
                goes.append((path, size, "set aside as rotten, and whole again since"))
            elif since < self._clock() - QUARANTINE_S:
                goes.append((path, size, "set aside over 30 days ago"))
            else:
                stays.append((path, size, "set aside as rotten: it goes after 30 days"))
        return goes, stays

    def _rotten(self) -> list[tuple[Path, int, float]]:
        """What lies in quarantine, with its bytes and since when."""
        found = []
        folders = [self._objects.quarantine_of(tier) for tier in self._objects.folders]
        for path in (each for folder in folders if folder.is_dir() for each in sorted(folder.iterdir())):
            parts = list(path.iterdir()) if path.is_dir() else [path]
            found.append((path, sum(part.stat().st_size for part in parts), path.stat().st_ctime))
        return found


def _removed(path: Path) -> bool:
    """Free what was set aside; its tier may take no changes now."""
    try:
        remove(path)
    except OSError as error:
        log.warning("%s stays for now: %s", path, error.strerror or error)
    return not path.exists()
