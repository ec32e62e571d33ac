"""Forgetting a user: all that he said is deleted, and his key is destroyed, so that no copy anywhere can be opened with
what is left here."""

from __future__ import annotations

import sqlite3
from typing import Any

from core.access import Gate
from core.chats import tables
from core.chats.holds import with_reason
from core.chats.sealed import Ring
from core.chats.service import Chats
from core.errors import Conflict, NotFound
from core.events import Bus
from core.nouns import Actor, Forgotten
from core.store import Store


class Forgetting:
    """Whoever holds `chats.forget` on `user:NAME`. The user may have left the host."""

    def __init__(self, store: Store, gate: Gate, bus: Bus, ring: Ring, chats: Chats) -> None:
        self._store, self._gate, self._bus, self._ring, self._chats = store, gate, bus, ring, chats

    async def ahead(self, actor: Actor, name: str) -> Forgotten:
        """What forgetting him would take away. Raises `NotFound` if there is nothing."""
        self._gate.require(actor, "chats.forget", f"user:{name}")
        return await self._store.read(lambda db: _told(db, name))

    async def forget(self, actor: Actor, request: str, name: str, reason: str) -> Forgotten:
        """Raises `Invalid` without a reason, `NotFound`, `Conflict` while anything of his is under legal hold."""
        reason = with_reason(reason)
        self._gate.require(actor, "chats.forget", f"user:{name}")
        keys: list[tuple[str, bytes]] = []

        def work(db: sqlite3.Connection) -> tuple[tuple[Forgotten, list[str]], Any, Any]:
            told, ids = _told(db, name), []
            keys.clear()
            for owner in tables.owners(db, name):
                mine = tables.of_owner(db, owner)
                if any(tables.held(db, id) for id in mine) or tables.held_user(db, owner):
                    raise Conflict(
                        f"{name} was not forgotten", "chats of his are under legal hold",
                        "`corral chats hold ls` shows by whom, and why",
                    )  # fmt: skip
                for id in mine:
                    tables.delete_chat(db, id)
                ids += mine
                if (key := tables.destroy_key(db, owner)) is not None:
                    keys.append(key)
            counts = {"chats": told.chats, "turns": told.turns, "keys": told.keys}
            return (told, ids), counts, None

        ids = await self._store.read(
            lambda db: [id for owner in tables.owners(db, name) for id in tables.of_owner(db, owner)]
        )
        held = await self._store.read(
            lambda db: (
                any(tables.held(db, id) for id in ids)
                or any(tables.held_user(db, owner) for owner in tables.owners(db, name))
            )
        )
        if not held:
            await self._chats.stop_all(ids, actor)
        told, gone = await self._gate.act(actor, "chats.forget", f"user:{name}", request, work, reason=reason)
        await self._chats.stop_all(gone, actor)
        await self._chats.forget_private(name)
        for id, _ in keys:
            self._ring.forget(id)
        await self._store.erase(lambda db: _erase(db, name))
        await self._store.scrub([wrapped for _, wrapped in keys])
        for id in gone:
            self._bus.publish("chat.gone", f"chat:{id}", to=name)
        return told


def _told(db: sqlite3.Connection, name: str) -> Forgotten:
    owners = tables.owners(db, name)
    if not owners:
        raise NotFound(f"{name} has no chats here", todo="see `corral chats ls --user NAME`")
    ids = [id for owner in owners for id in tables.of_owner(db, owner)]
    keys = sum(
        db.execute("SELECT count(*) FROM chat_keys WHERE owner_uid = ? AND owner = ?", owner).fetchone()[0]
        for owner in owners
    )
    return Forgotten(user=name, chats=len(ids), turns=sum(tables.count_turns(db, id) for id in ids), keys=keys)


def _erase(db: sqlite3.Connection, name: str) -> None:
    """From a copy; one from before chats were sealed has no keys."""
    for id in [row[0] for row in db.execute("SELECT id FROM chats WHERE owner = ?", (name,))]:
        tables.delete_chat(db, id)
    db.execute("DELETE FROM chat_keys WHERE owner = ?", (name,))
