"""Answers in the making when their deployment is marked as sensitive: they end, and leave nothing.

What was said before the mark stays as it was. A question whose answer is still in the making counts as said after it:
question, answer and what they replaced are deleted for good, and a chat of which nothing is left goes with them. Only
under legal hold does what had been stored before the mark stay.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sqlite3
from collections.abc import Awaitable, Callable
from typing import Any

from core.access import Gate
from core.chats import tables
from core.chats.asking import Answers
from core.chats.inflight import InFlight, delete_turn, in_flight, stopped
from core.errors import CorralError, NotFound
from core.events import Bus
from core.nouns import CORRAL, Actor
from core.store import Store

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""After a try that failed (a full disk)."""


class Unkept:
    """Takes them away. `look` after each change of the rights and at the start."""

    def __init__(
        self, store: Store, gate: Gate, bus: Bus, answers: Answers,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self._store, self._gate, self._bus, self._answers, self._pause = store, gate, bus, answers, pause
        self._doomed: set[str] = set()
        """Turns of which something was not stored any more, whatever the marks say by now."""
        self._task: asyncio.Task[None] | None = None
        self._more = False

    def refuses(self, turn: str, deployment: str) -> bool:
        """In a transaction: whether nothing of this turn may be written any more."""
        if turn not in self._doomed and deployment not in self._gate.rights.marks:
            return False
        self._doomed.add(turn)
        return True

    def look(self) -> None:
        """Take away what there is, beside everything else."""
        self._more = True
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run())

    async def begin(self) -> None:
        """What the daemon before left; where that cannot be deleted now, it is tried again beside everything else."""
        try:
            await self._sweep()
        except CorralError as error:
            log.error("%s", error)
            self.look()

    async def close(self) -> None:
        """What is left is for the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while self._more:
            self._more = False
            try:
                await self._sweep()
            except CorralError as error:
                log.error("an answer of a sensitive deployment is not deleted yet: %s", error)
                self._more = True
                await self._pause(AGAIN_S)

    def _found(self, db: sqlite3.Connection) -> list[InFlight]:
        marks = self._gate.rights.marks
        return [each for each in in_flight(db) if each.turn in self._doomed or each.deployment in marks]

    async def _sweep(self) -> None:
        """Raises `StoreError`."""
        gone = []
        for each in await self._store.read(self._found):
            held = await self._store.read(lambda db, chat=each.chat: tables.held(db, chat))  # type: ignore[misc]
            actor = Actor(uid=each.owner.uid, name=each.owner.name, through="daemon")
            await self._answers.cut(each.turn, actor, _why(each.deployment, held))
            try:
                if await self._delete(each):
                    gone.append(each)
            except NotFound:
                pass  # its owner was faster
            self._doomed.discard(each.turn)
        if gone:
            await self._store.erase(lambda db: [_take(db, each) for each in gone])

    async def _delete(self, each: InFlight) -> bool:
        """Delete it, or under legal hold only say that it has ended; whether it is gone. One record."""

        def work(db: sqlite3.Connection) -> tuple[tuple[bool, bool], Any, Any]:
            if each not in in_flight(db):
                raise NotFound(f"chat {each.chat} has no turn {each.n} in the making")
            if tables.held(db, each.chat):
                stopped(db, each.turn)
                return (False, False), None, {"turn": each.n, "held": True}
            whole = _take(db, each)
            return (True, whole), {"turn": each.n, "chat": whole}, None

        gone, whole = await self._gate.act(
            CORRAL, "chats.unkeep", f"chat:{each.chat}", secrets.token_hex(8), work,
            reason=f"{each.deployment} was marked as sensitive while the answer was made",
        )  # fmt: skip
        if whole:
            self._bus.publish("chat.gone", f"chat:{each.chat}", to=each.owner.name)
        return gone


def _take(db: sqlite3.Connection, each: InFlight) -> bool:
    """Delete a turn, and its chat if nothing else is in it: the title is the first question's. Whether that went."""
    delete_turn(db, each.turn)
    if tables.count_turns(db, each.chat):
        return False
    tables.delete_chat(db, each.chat)
    return True


def _why(deployment: str, held: bool) -> str:
    """What the one who asked is told."""
    left = "what had come before is under legal hold and stays" if held else "nothing of question and answer is kept"
    return f"{deployment} was marked as sensitive: {left}"
