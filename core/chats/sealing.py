"""Chats from before they were sealed: sealed a piece at a time, and what was plain of them is erased from every file.

It can be killed at any moment: each piece is one transaction, and the mark that all is done is the last thing written.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable

from core.access import Gate
from core.chats import tables
from core.chats.sealed import Ring
from core.errors import CorralError
from core.nouns import CORRAL
from core.store import Store

log = logging.getLogger(__name__)

PIECE = 20
"""Chats of one transaction."""
AGAIN_S = 300.0
MARK = "chats_sealed"


class Sealing:
    """The job of the daemon that comes after the program without seals."""

    def __init__(self, store: Store, gate: Gate, ring: Ring) -> None:
        self._store, self._gate, self._ring = store, gate, ring
        self._opened = asyncio.Event()

    async def opened(self) -> None:
        """The master key is there."""
        self._opened.set()

    async def run(self, pause: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Until all is done. A store that cannot be written is tried again later."""
        while True:
            await self._opened.wait()
            try:
                await self.seal()
                return
            except CorralError as error:
                log.error("chats of before they were sealed are still in the database: %s", error)
            await pause(AGAIN_S)

    async def seal(self) -> int:
        """Seal what is plain; how many chats. Raises `CorralError`."""
        if await self._store.read(_marked):
            return 0
        count = 0
        while await self._store.read(lambda db: tables.plain_chats(db, 1)):
            count += await self._store.transact(self._piece)
        # A program without seals could not read sealed chats either: they go from the copies that it would go back to.
        await self._store.erase(tables.delete_plain)
        await self._store.tidy()
        if count:
            request, after = secrets.token_hex(8), {"chats": count}
            await self._gate.record(CORRAL, "chats.seal", "chats:all", request, "done", after=after)
        await self._store.transact(
            lambda db: db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, '1')", (MARK,)) and None
        )
        return count

    def _piece(self, db: sqlite3.Connection) -> int:
        found = tables.plain_chats(db, PIECE)
        for id in found:
            tables.seal_chat(db, self._ring, id)
        return len(found)


def _marked(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM meta WHERE key = ?", (MARK,)).fetchone() is not None
