"""The service of chats: keeps them for their owners, sealed or in memory, until they are deleted for good."""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec

from core.access import Gate
from core.chats import checks, inflight, tables
from core.chats.asking import Answers, Queued
from core.chats.holds import refuse_held, refused_hold
from core.chats.rooms import Rooms
from core.chats.rules import Rules
from core.chats.sealed import Ring
from core.chats.shelf import Shelves, missed
from core.chats.turns import OWN, Turns, publish
from core.errors import Conflict, Invalid, missing
from core.events import Bus
from core.nouns import CORRAL, Actor, Chat, ChatDetail, ChatOptions, Deployment
from core.nouns.written import as_json, as_markdown
from core.store import Store

TITLE = 200
"""Characters of a title that are kept."""


class Chats:
    """Kept per user (uid and name), sealed with his key; private ones in memory alone. Nobody sees another's chats; not
    found is all that he is told (core/chats/others.py is the one way around it, and it is recorded)."""

    def __init__(
        self,
        store: Store,
        gate: Gate,
        bus: Bus,
        ring: Ring,
        rules: Rules,
        *,
        gateway_socket: Path,
        deployment: Callable[[str], Awaitable[Deployment | None]],
        clock: Callable[[], float] = time.time,
        queued: Queued = lambda turn: None,
    ) -> None:
        self._store, self._gate, self._bus = store, gate, bus
        self._deployment = deployment
        self._clock = clock
        self._rules = rules
        self._shelves = Shelves(store, ring)
        self._started = False
        self._rooms = Rooms(rules, deployment)
        self._answers = Answers(gate, bus, gateway_socket=gateway_socket, clock=clock, queued=queued)
        self.turns = Turns(store, gate, bus, self._shelves, self._rooms, self._answers, clock)

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Go on with the turns that were in flight when the daemon before ended, if they can be read."""
        self._started = True
        await self.turns.unkept.begin()
        await self.opened()

    async def opened(self) -> None:
        """The master key is there."""
        if not self._started or not self._shelves.kept.ring.open:
            return
        for turn, offset, uid, owner, deployment in await self._shelves.kept.read(inflight.unfinished):
            if self._answers.get(turn.id) is None and deployment not in self._gate.rights.marks:
                actor = Actor(uid=uid, name=owner, through="daemon")
                save = self.turns.saved(self._shelves.kept, deployment)
                self._answers.resume(actor, turn, offset, deployment, save)

    async def close(self) -> None:
        """Leave the turns to the gateway; the next daemon goes on with them. Private ones end."""
        await self.turns.unkept.close()
        await self._answers.close()
        self._shelves.fleeting.close()

    def obey(self) -> None:
        """Rights have changed: end the answers of those who may not use the deployment any more, and those of which
        nothing may be kept now."""
        self._answers.obey()
        self.turns.unkept.look()

    # ---------------------------------------------------------------------------------------- chats

    async def create(
        self, actor: Actor, request: str, deployment: str, options: ChatOptions, title: str | None = None,
        question: str = "", *, private: bool = False,
    ) -> Chat:  # fmt: skip
        """`question` is what will be asked first: one that would be refused leaves no chat behind. `private`: it is
        kept in memory alone, as it is where a rule says that nothing is kept. Raises `NotFound` if there is no such
        deployment, `Conflict` if it is down and there is a question, or for a private one under legal hold."""
        checks.may_use(self._gate, actor, deployment)
        if not private:
            checks.may_keep(self._gate, deployment)
        there = await self._deployment(deployment)
        if there is None:
            raise missing("deployment", deployment)
        if question and there.state in ("stopped", "failed"):  # others may be ready before the answer is made
            raise Conflict(f"{deployment} is {there.state}", there.reason, checks.mended(there))
        checks.in_range(options)
        held = await self._store.read(lambda db: tables.held_user(db, actor))
        private = private or (not held and self._rules.days(actor.uid, actor.name, actor.groups, deployment) == 0)
        shelf = self._shelves.of(private)
        now = self._clock()
        chat = Chat(
            id=secrets.token_hex(5), title=(title or "")[:TITLE], deployment=deployment, options=options,
            owner=actor.name, owner_uid=actor.uid, created_at=now, updated_at=now, private=private, held=held,
        )  # fmt: skip
        if question:
            checks.admit(await self._rooms.of(actor, chat), question)

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            if private and tables.held_user(db, actor):
                raise Conflict(
                    "no private chat was begun", f"what {actor.name} says is under legal hold and must be kept",
                    "leave --private away, or ask whoever set the hold",
                )  # fmt: skip
            with shelf.within(db) as at:
                tables.put_chat(at, shelf.ring, chat, actor.uid)
            return None, None, {"deployment": deployment, "private": private}

        await self._gate.act(actor, "chats.create", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        publish(self._bus, chat)
        return await self._rooms.of(actor, chat)

    async def ls(self, actor: Actor) -> list[Chat]:
        """His own, newest first. Raises `Locked`."""
        return await self._rooms.all(actor, await self._shelves.ls(lambda db, ring: tables.chats_of(db, ring, actor)))

    async def search(self, actor: Actor, text: str) -> list[Chat]:
        if not text:
            raise Invalid("nothing to search for")
        found = await self._shelves.ls(lambda db, ring: tables.search(db, ring, actor, text))
        return await self._rooms.all(actor, found)

    async def get(self, actor: Actor, id: str) -> ChatDetail:
        """A chat and its turns, with what has come of the one in flight. Raises `NotFound`, `Locked`."""
        chat, shelf = await self._shelves.mine(actor, id)
        turns = await shelf.read(lambda db, ring: tables.turns_of(db, ring, chat.id))
        return ChatDetail(
            chat=await self._rooms.of(actor, chat), messages=tuple(map(self._answers.so_far, turns))
        )  # fmt: skip

    async def update(self, actor: Actor, request: str, id: str, **fields: Any) -> Chat:
        """Change title, options, on_full or deployment."""
        old, shelf = await self._shelves.mine(actor, id)
        if isinstance(fields.get("deployment"), str):
            checks.may_use(self._gate, actor, fields["deployment"])
            if not shelf.private:
                checks.may_keep(self._gate, fields["deployment"])
        if isinstance(fields.get("options"), ChatOptions):
            checks.in_range(fields["options"])
        if fields.get("on_full", "ask") not in ("ask", "forget-oldest"):
            raise Invalid("on_full is `ask` or `forget-oldest`")
        if isinstance(fields.get("title"), str):
            fields["title"] = fields["title"][:TITLE]

        def work(db: sqlite3.Connection) -> tuple[Chat, Any, Any]:
            with shelf.within(db) as at:
                now = checks.there(at, shelf, actor, old.id)
                if fields.get("deployment", now.deployment) != now.deployment:
                    checks.idle(at, old.id)
                    if not shelf.private:
                        checks.may_keep(self._gate, fields["deployment"])
                if {"title", "options"} & fields.keys() and (now.title or now.options.system):
                    refuse_held(now)
                new = msgspec.structs.replace(now, **fields, updated_at=self._clock())
                tables.change_chat(at, shelf.ring, new)
            return new, None, {"changed": sorted(fields)}

        new = await self._gate.act(actor, "chats.update", f"chat:{old.id}", request, work, permission=OWN, on="*")
        publish(self._bus, new)
        return await self._rooms.of(actor, new)

    async def rm(self, actor: Actor, request: str, id: str) -> None:
        """Delete for good: pages are overwritten, in copies of the database too, and the write-ahead log is cut. Works
        while the chats are locked. Raises `Conflict` for one under legal hold."""
        chat, shelf = await self._shelves.named(actor, id)
        private = shelf.private
        if private or not await self._store.read(lambda db: tables.held(db, chat)):
            await self._answers.stop_all(chat, actor)

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            with shelf.within(db) as at:
                if tables.owner(at, chat) != (actor.uid, actor.name):
                    raise missed(id)
                if not private and tables.held(at, chat):
                    raise refused_hold(chat)
                turns = tables.count_turns(at, chat)
                tables.delete_chat(at, chat)
            return None, {"turns": turns}, None

        await self._gate.act(actor, "chats.rm", f"chat:{chat}", request, work, permission=OWN, on="*")
        await self._answers.stop_all(chat, actor)  # what was asked between the first look and the deletion
        if not private:
            await self._store.erase(lambda db: tables.delete_chat(db, chat))
        self._bus.publish("chat.gone", f"chat:{chat}", to=actor.name)

    async def export(self, actor: Actor, id: str, format: str) -> str:
        """One chat, as Markdown or JSON."""
        detail = await self.get(actor, id)
        return as_json(detail) if format == "json" else as_markdown([detail])

    async def export_all(self, actor: Actor, format: str) -> str:
        """All of the actor's own but the private ones."""
        found = await self._shelves.kept.read(lambda db, ring: tables.details(db, ring, actor))
        return as_json(found) if format == "json" else as_markdown(found)

    async def stop_all(self, ids: Iterable[str], actor: Actor) -> None:
        """End the answers of these chats."""
        for id in ids:
            await self._answers.stop_all(id, actor)

    async def forget_private(self, name: str) -> None:
        """Let the private chats of a user go."""
        gone = await self._shelves.fleeting.read(
            lambda db, _: [id for owner in tables.owners(db, name) for id in tables.of_owner(db, owner)]
        )
        await self.stop_all(gone, CORRAL)
        for id in gone:
            await self._shelves.fleeting.write(lambda db, _, id=id: tables.delete_chat(db, id))  # type: ignore[misc]

    async def end_private(self, idle_s: float) -> int:
        """Let the private ones go that nobody has used for so long; how many."""
        before = self._clock() - idle_s

        def work(db: sqlite3.Connection, ring: Ring) -> list[tuple[str, tables.Owner]]:
            over = [(id, owner) for id, owner, _, at, busy in tables.ages(db) if at < before and not busy]
            for id, _ in over:
                tables.delete_chat(db, id)
            return over

        gone = await self._shelves.fleeting.write(work)
        for id, owner in gone:
            self._bus.publish("chat.gone", f"chat:{id}", to=owner.name)
        return len(gone)
