"""Where chats lie: sealed in the database, or for private ones in the daemon's memory and nowhere else."""

from __future__ import annotations

import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TypeVar

import msgspec

from core.chats import tables
from core.chats.sealed import KEY, Master, Ring
from core.errors import NotFound, missing
from core.nouns import Actor, Chat
from core.store import Store, migrate

T = TypeVar("T")


class Shelf(Protocol):
    """Chats and their turns. What reads and writes them is core.chats.tables, for both alike."""

    private: bool
    ring: Ring

    async def read(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T: ...

    async def write(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T:
        """In a transaction of its own."""
        ...

    def within(self, db: sqlite3.Connection) -> AbstractContextManager[sqlite3.Connection]:
        """Inside a transaction of the database `db`: the connection to write to, whose changes go with it."""
        ...


class Kept:
    """Those in the database."""

    private = False

    def __init__(self, store: Store, ring: Ring) -> None:
        self._store, self.ring = store, ring

    async def read(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T:
        return await self._store.read(lambda db: fn(db, self.ring))

    async def write(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T:
        return await self._store.transact(lambda db: fn(db, self.ring))

    @contextmanager
    def within(self, db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
        yield db


class Fleeting:
    """The private ones: the same tables in memory, under a key that is nowhere else. They end with the daemon."""

    private = True

    def __init__(self) -> None:
        self.ring = Ring(Master(secrets.token_bytes(KEY)))
        self._lock = threading.Lock()
        """The store's threads take turns."""
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA secure_delete=ON")
        self._db.execute("PRAGMA temp_store=MEMORY")
        migrate.migrate(self._db, migrate.find(("core.chats",)), time.time())

    def close(self) -> None:
        with self._lock:
            self._db.close()

    async def read(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T:
        with self._lock:
            return fn(self._db, self.ring)

    async def write(self, fn: Callable[[sqlite3.Connection, Ring], T]) -> T:
        with self._within() as db:
            return fn(db, self.ring)

    def within(self, db: sqlite3.Connection) -> AbstractContextManager[sqlite3.Connection]:
        return self._within()

    @contextmanager
    def _within(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")


class Shelves:
    """Both, and what a user finds on them."""

    def __init__(self, store: Store, ring: Ring) -> None:
        self.kept, self.fleeting = Kept(store, ring), Fleeting()

    def of(self, private: bool) -> Shelf:
        return self.fleeting if private else self.kept

    async def ls(self, look: Callable[[sqlite3.Connection, Ring], list[Chat]]) -> list[Chat]:
        """What `look` finds, newest first. Raises `Locked`."""
        private = [msgspec.structs.replace(chat, private=True) for chat in await self.fleeting.read(look)]
        return sorted([*private, *await self.kept.read(look)], key=lambda chat: -chat.updated_at)

    async def named(self, actor: Actor, id: str) -> tuple[str, Shelf]:
        """The whole id of a chat of the actor's, and where it is. Nothing is opened for it. Raises `NotFound`."""
        for shelf in (self.fleeting, self.kept):
            try:
                found, _ = await shelf.read(lambda db, _: tables.named(db, id, actor))
            except NotFound:
                continue
            return found, shelf
        whose = await self.kept.read(lambda db, _: tables.owner(db, id))
        raise missing("chat", id, reason=f"{actor.name} asked for a chat of {whose.name}" if whose else "")

    async def mine(self, actor: Actor, id: str) -> tuple[Chat, Shelf]:
        """Raises `NotFound`, `Locked`."""
        chat, shelf = await self.named(actor, id)
        found = await shelf.read(lambda db, ring: tables.one_chat(db, ring, actor, chat))
        if found is None:
            raise missed(id)
        return msgspec.structs.replace(found, private=shelf.private), shelf


def missed(id: str) -> NotFound:
    """What is said of a chat that is not there, or another's."""
    return NotFound(f"no chat {id!r}", todo="see `corral chats ls`")
