"""The service of the master key: found at the start, unlocked, replaced; without it the chats are locked."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from core.access import Gate
from core.chats.master import UNLOCK, Masters, Salted, strong
from core.chats.sealed import Master, Ring, rewrap
from core.errors import Conflict, CorralError, Invalid, Locked, NotAllowed
from core.nouns import CORRAL, Actor, ChatKey
from core.store import Store

log = logging.getLogger(__name__)

OBJECT = "chat:keys"
NAME = "chats_master"
"""In `meta`: which master key wraps the users' keys."""


class _Known(msgspec.Struct, frozen=True):
    """What the database says of the master key."""

    id: str
    salted: Salted | None = None
    """Of a passphrase."""


class Vault:
    """`ring` is open or locked; `on_open` is called when it becomes open."""

    def __init__(self, store: Store, gate: Gate, masters: Masters) -> None:
        self._store, self._gate, self._masters = store, gate, masters
        self.ring = Ring()
        self.on_open: list[Callable[[], Awaitable[None]]] = []
        self._turn = asyncio.Lock()
        """One at a time: a passphrase takes 128 MiB to try."""
        self._is_in_a_file = False
        """The key that counts now."""
        self._lacking = ""
        """Why the next daemon would not find it."""

    async def start(self) -> None:
        """Open with the key that is there. Without one the chats stay locked, and all else goes on. Raises
        `StoreError`."""
        async with self._turn:
            await self._look()

    async def follow(self) -> None:
        """corral.toml was read again, a key was put back, or the disk has room again."""
        async with self._turn:
            if not self.ring.open:
                await self._look()

    async def mind(self) -> None:
        """Look whether the key lies there still: this daemon has it, and the next one would have to find it."""
        async with self._turn:
            lacking = ""
            if self.ring.open and self._is_in_a_file:
                lacking = await asyncio.to_thread(self._masters.lacking, self.ring.master.id)
            if lacking and not self._lacking:
                log.error("the master key of the chats is gone: %s", lacking)
            self._lacking = lacking

    async def _look(self) -> None:
        known = await self._store.read(_known)
        self._is_in_a_file = known is not None and known.salted is None
        try:
            if known is not None and known.salted is not None:
                self.ring.lock("they wait for their passphrase", UNLOCK)
                return
            if known is None and self._masters.by_passphrase:
                self.ring.lock("there is no passphrase yet", f"{UNLOCK}: the first one is kept")
                return
            if known is not None:
                master = await asyncio.to_thread(self._masters.active, known.id)
            else:
                master = await asyncio.to_thread(self._masters.first)
                await self._begin(CORRAL, "start", _Known(master.id))
                self._is_in_a_file = True
        except CorralError as error:
            if not isinstance(error, Locked):
                error = Locked("the chats are locked", "; ".join(filter(None, (error.what, error.why))), error.todo)
            why = error.why
            if why != self.ring.why:
                log.error("%s", error)
            self.ring.lock(why, error.todo)
            return
        await self._open(master)

    async def _begin(self, actor: Actor, request: str, known: _Known) -> None:
        """Write down which key is the first one."""

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            if _known(db) is not None:
                raise Conflict("there is a master key already", todo="corral chats unlock")
            _know(db, known)
            return None, None, {"key": known.id, "in": _where(known)}

        await self._gate.act(actor, "chats.key", OBJECT, request, work, permission="chats.keys")

    async def _open(self, master: Master) -> None:
        self.ring.unlock(master)
        for tell in self.on_open:
            await tell()

    # ---------------------------------------------------------------------------------------- what people ask

    async def status(self) -> ChatKey:
        """Whether the chats are open, with which key, and what to do if not."""
        known = await self._store.read(_known)
        users = await self._store.read(lambda db: int(db.execute("SELECT count(*) FROM chat_keys").fetchone()[0]))
        plain = await self._store.read(
            lambda db: int(db.execute("SELECT count(*) FROM chats WHERE key IS NULL").fetchone()[0])
        )
        return ChatKey(
            state="open" if self.ring.open else "locked" if known else "new", id=known.id if known else "",
            place=self._place(known), users=users, plain=plain,
            passphrase=bool(known.salted if known else self._masters.by_passphrase),
            why="" if self.ring.open else self.ring.why, todo="" if self.ring.open else self.ring.todo,
            wanted="passphrase" if self._masters.by_passphrase else "file",
        )  # fmt: skip

    def _place(self, known: _Known | None) -> str:
        if known and known.salted:
            return _where(known)
        return self._masters.file if known else self._masters.place

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        if not self.ring.open:
            return [f"the chats are locked: {self.ring.why}; {self.ring.todo}"]
        if self._lacking:
            return [
                f"the next daemon would not find the master key of the chats: {self._lacking}; put it back, or let"
                " `corral chats rekey` make another before this daemon ends: after that nobody could read them"
            ]
        if self._masters.by_passphrase and self._is_in_a_file:
            return [
                "the chats are not sealed with a passphrase yet, as corral.toml says:"
                f" the key is in {self._masters.file}; `corral chats rekey` goes over to one"
            ]
        return []

    async def unlock(self, actor: Actor, request: str, passphrase: str) -> ChatKey:
        """Open with a passphrase; the first one ever is the one that counts from then on. Raises `NotAllowed` for a
        wrong one, which is recorded."""
        self._gate.require(actor, "chats.keys", OBJECT)
        async with self._turn:
            if self.ring.open:
                raise Conflict("the chats are open", "nothing is to be unlocked")
            known = await self._store.read(_known)
            if known is None and self._masters.by_passphrase:
                salted = Salted.new()
                master = await asyncio.to_thread(salted.master, strong(passphrase))
                await self._begin(actor, request, _Known(master.id, salted))
            elif known is None or known.salted is None:
                raise Conflict("the master key is in a file", self.ring.why, self.ring.todo)
            else:
                master = await asyncio.to_thread(known.salted.master, passphrase)
                await self._gate.act(actor, "chats.unlock", OBJECT, request, lambda db: _right(known, master),
                                     permission="chats.keys")  # fmt: skip
            await self._open(master)
        return await self.status()

    async def rekey(self, actor: Actor, request: str, passphrase: str) -> ChatKey:
        """Go over to another master key: the users' keys are wrapped anew, what is sealed with them stays. Where
        corral.toml says `passphrase` it is `passphrase`, else a file. Raises `Locked`, `Conflict`, `Invalid`."""
        self._gate.require(actor, "chats.keys", OBJECT)
        async with self._turn:
            old = self.ring.master
            if self._masters.by_passphrase:
                salted = Salted.new()
                new = await asyncio.to_thread(salted.master, strong(passphrase))
                known = _Known(new.id, salted)
            elif passphrase:
                raise Invalid(
                    "the master key is in a file", f"it is {self._masters.file}",
                    'for a passphrase write master_key = "passphrase" under [chats], then `corral reload`',
                )  # fmt: skip
            else:
                new = await asyncio.to_thread(self._masters.successor, old.id)
                known = _Known(new.id)

            def work(db: sqlite3.Connection) -> tuple[int, Any, Any]:
                before = _known(db)
                count = rewrap(db, old, new)
                _know(db, known)
                return count, before and {"key": before.id, "in": _where(before)}, {
                    "key": new.id, "in": _where(known), "keys": count,
                }  # fmt: skip

            try:
                await self._gate.act(actor, "chats.rekey", OBJECT, request, work, permission="chats.keys")
            except BaseException:
                await asyncio.to_thread(self._masters.give_up)
                raise
            self._is_in_a_file, self._lacking = known.salted is None, ""
            self.ring.unlock(new)
            await self._store.erase(lambda db: rewrap(db, old, new))
            try:
                await asyncio.to_thread(self._masters.succeed, new.id)
            except OSError as error:
                log.error("the old master key could not be removed: %s", error)
        return await self.status()


def _right(known: _Known, master: Master) -> tuple[None, Any, Any]:
    if master.id != known.id:
        raise NotAllowed("the passphrase is wrong", todo="try again; capitals and the keyboard's layout count")
    return None, None, {"key": known.id}


def _where(known: _Known) -> str:
    return "passphrase" if known.salted else "file"


def _known(db: sqlite3.Connection) -> _Known | None:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (NAME,)).fetchone()
    return None if row is None else msgspec.json.decode(row[0], type=_Known)


def _know(db: sqlite3.Connection, known: _Known) -> None:
    db.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (NAME, msgspec.json.encode(known).decode())
    )  # fmt: skip
