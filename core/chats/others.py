"""A look into what others said: by whoever holds `chats.read-others` on `user:NAME`, with a reason, and recorded before
anything is shown."""

from __future__ import annotations

import sqlite3
from typing import Any

from core.access import Gate
from core.chats import tables
from core.chats.holds import with_reason
from core.chats.sealed import Ring
from core.errors import NotAllowed, NotFound
from core.nouns import Actor, ChatDetail, OthersChats

VERB = "chats.read-others"


class Others:
    """Private chats are not among them: they are nobody's but their owner's. Nor are those with a deployment that is
    marked as sensitive, from before the mark: they are shared with nobody."""

    def __init__(self, gate: Gate, ring: Ring) -> None:
        self._gate, self._ring = gate, ring

    async def titles(self, actor: Actor, request: str, name: str, reason: str) -> OthersChats:
        """The chats of a user, newest first: titles are read, so this is a look. Raises `Invalid` without a reason,
        `NotAllowed`, `NotFound`, `Locked`."""
        return await self._look(actor, request, name, reason, "titles")

    async def all(self, actor: Actor, request: str, name: str, reason: str) -> OthersChats:
        """All that a user said."""
        return await self._look(actor, request, name, reason, "all")

    async def one(self, actor: Actor, request: str, id: str, reason: str) -> OthersChats:
        """One chat, by its id or the beginning of it."""
        reason = with_reason(reason)

        def work(db: sqlite3.Connection) -> tuple[OthersChats, Any, Any]:
            try:
                chat, name = tables.named(db, id)
            except NotFound:
                self._gate.require(actor, VERB, "user:*")  # whether it is there is for those who may look
                raise
            self._gate.require(actor, VERB, f"user:{name}")
            found = tables.one_chat(db, self._ring, None, chat)
            assert found is not None
            if found.deployment in self._gate.rights.marks:
                raise NotAllowed(
                    f"what was said to {found.deployment} is for its owner alone", "the deployment is sensitive",
                    "its owner can export it: `corral chats export`",
                )  # fmt: skip
            detail = ChatDetail(chat=found, messages=tuple(tables.turns_of(db, self._ring, chat)))
            return OthersChats(user=name, reason=reason, chats=(detail,)), None, {"user": name, "chat": chat}

        return await self._gate.act(
            actor, VERB, f"chat:{id[:40]}", request, work, permission=VERB, on="*", reason=reason
        )

    async def _look(self, actor: Actor, request: str, name: str, reason: str, what: str) -> OthersChats:
        reason = with_reason(reason)

        def work(db: sqlite3.Connection) -> tuple[OthersChats, Any, Any]:
            owners = tables.owners(db, name)
            if not owners:
                raise NotFound(f"{name} has no chats here")
            found: list[ChatDetail] = []
            for owner in owners:
                if what == "all":
                    found += tables.details(db, self._ring, owner)
                else:
                    found += [ChatDetail(chat=each, messages=()) for each in tables.chats_of(db, self._ring, owner)]
            shown = tuple(each for each in found if each.chat.deployment not in self._gate.rights.marks)
            counts = {"chats": len(shown)} | ({"sensitive": len(found) - len(shown)} if len(shown) < len(found) else {})
            return OthersChats(user=name, reason=reason, chats=shown), None, {"read": what, **counts}

        return await self._gate.act(actor, VERB, f"user:{name[:128]}", request, work, reason=reason)
