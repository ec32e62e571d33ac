"""Legal hold: nothing of a user's chats, or of one chat, is deleted by retention, by its owner or by forgetting."""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Callable
from typing import Any

from core.access import Gate
from core.access.people import subject_named
from core.chats import tables
from core.chats.tables import Owner
from core.errors import Conflict, Invalid, NotFound
from core.nouns import Actor, Chat, Hold
from core.store import Store

REASON = 500
"""Characters of a reason that are kept."""
_COLUMNS = "id, kind, uid, name, reason, by, at"


class Holds:
    """Set and released by who holds `chats.hold` on `user:NAME`; each change is recorded with its reason."""

    def __init__(self, store: Store, gate: Gate, clock: Callable[[], float]) -> None:
        self._store, self._gate, self._clock = store, gate, clock

    async def ls(self, actor: Actor) -> list[Hold]:
        """Those that the actor may release; an auditor sees all."""
        found = await self._store.read(lambda db: [(hold, _of(db, hold)) for hold in _all(db)])
        if self._gate.may(actor, "audit.read", "audit:chain"):
            return [hold for hold, _ in found]
        return [hold for hold, owner in found if self._gate.may(actor, "chats.hold", f"user:{owner}")]

    async def add(self, actor: Actor, request: str, what: str, reason: str) -> Hold:
        """`what`: user:NAME, or a chat's id or its beginning. Raises `Invalid` without a reason, `NotFound`,
        `Conflict` if it is held already."""
        reason = with_reason(reason)
        kind, _, name = what.partition(":")
        owner = Owner(-1, "")
        if kind == "user":
            owner = await self._owner(name)

        def work(db: sqlite3.Connection) -> tuple[Hold, Any, Any]:
            hold = Hold(
                id=f"h{secrets.token_hex(4)}", kind="user", name=name, uid=owner.uid, reason=reason, by=actor.name,
                at=self._clock(),
            )  # fmt: skip
            whose = name
            if kind != "user":
                chat, whose = tables.named(db, what.removeprefix("chat:"))
                hold = Hold(id=hold.id, kind="chat", name=chat, reason=reason, by=hold.by, at=hold.at)
            self._gate.require(actor, "chats.hold", f"user:{whose}")
            if any((each.kind, each.name, each.uid) == (hold.kind, hold.name, hold.uid) for each in _all(db)):
                raise Conflict(f"{hold.kind} {hold.name} is under legal hold already", todo="corral chats hold ls")
            db.execute(
                f"INSERT INTO chat_holds ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - constants only
                (hold.id, hold.kind, hold.uid, hold.name, hold.reason, hold.by, hold.at),
            )
            return hold, None, {"hold": hold.id}

        object = f"user:{name}" if kind == "user" else f"chat:{what.removeprefix('chat:')[:40]}"
        return await self._gate.act(
            actor, "chats.hold", object, request, work, permission="chats.hold", on="*", reason=reason
        )

    async def release(self, actor: Actor, request: str, id: str, reason: str) -> Hold:
        """Raises `Invalid` without a reason, `NotFound`."""
        reason = with_reason(reason)

        def work(db: sqlite3.Connection) -> tuple[Hold, Any, Any]:
            hold = next((each for each in _all(db) if each.id == id), None)
            if hold is None:
                raise NotFound(f"there is no hold {id}", todo="corral chats hold ls")
            self._gate.require(actor, "chats.hold", f"user:{_of(db, hold)}")
            db.execute("DELETE FROM chat_holds WHERE id = ?", (id,))
            return hold, {"hold": id, "of": f"{hold.kind}:{hold.name}", "by": hold.by}, None

        return await self._gate.act(
            actor, "chats.release", f"hold:{id[:20]}", request, work, permission="chats.hold", on="*", reason=reason
        )

    async def _owner(self, name: str) -> Owner:
        """Somebody of the host, or one who has left it and whose chats are still there. Raises `NotFound`."""
        left = await self._store.read(lambda db: tables.owners(db, name))
        if left:
            return left[-1]
        found = await subject_named(f"user:{name}")
        return Owner(found.id, found.name)


def with_reason(reason: str) -> str:
    """Raises `Invalid` where there is none."""
    reason = reason.strip()
    if not reason or len(reason) > REASON:
        raise Invalid("a reason is needed", f"one of 1 to {REASON} characters; it is recorded", "say --reason TEXT")
    return reason


def refused_hold(chat: str) -> Conflict:
    """What is said of a chat of which nothing may be deleted."""
    return Conflict(
        f"chat {chat} is under legal hold", "nothing of it may be deleted or changed",
        "it can go when whoever may release it has done so",
    )  # fmt: skip


def refuse_held(chat: Chat) -> None:
    """Raises `Conflict` for a chat that may not be deleted from."""
    if chat.held:
        raise refused_hold(chat.id)


def any_hold(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM chat_holds LIMIT 1").fetchone() is not None


def _of(db: sqlite3.Connection, hold: Hold) -> str:
    """Whose chats it holds."""
    if hold.kind == "user":
        return hold.name
    owner = tables.owner(db, hold.name)
    return owner.name if owner else ""


def _all(db: sqlite3.Connection) -> list[Hold]:
    rows = db.execute(f"SELECT {_COLUMNS} FROM chat_holds ORDER BY at")  # noqa: S608 - constants only
    return [Hold(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]
