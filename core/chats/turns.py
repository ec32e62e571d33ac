"""What is asked in a chat: the question is stored, its answer begun, followed and stopped."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable
from typing import Any

import msgspec

from core.access import Gate
from core.chats import checks, tables
from core.chats.answer import Answer
from core.chats.asking import Answers, Live, Save
from core.chats.context import fitting, messages, overfull
from core.chats.holds import refuse_held
from core.chats.rooms import Rooms
from core.chats.sealed import Ring
from core.chats.shelf import Shelf, Shelves
from core.chats.unkept import Unkept
from core.errors import Conflict, NotFound, Unseen
from core.events import Bus
from core.nouns import Actor, Chat, Turn
from core.store import Store

OWN = "chats.own"
"""The permission to keep chats; which deployment they may be with is asked for apart from it."""


class Turns:
    """Those of the chats on `shelves`; the answers in the making are `answers`."""

    def __init__(
        self, store: Store, gate: Gate, bus: Bus, shelves: Shelves, rooms: Rooms, answers: Answers,
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._gate, self._bus, self._shelves = gate, bus, shelves
        self._rooms, self._answers, self._clock = rooms, answers, clock
        self.unkept = Unkept(store, gate, bus, answers)

    async def ask(
        self, actor: Actor, request: str, chat_id: str, question: str, *, replace_turn: int | None = None,
        cont: bool = False, forget_oldest: bool = False,
    ) -> Turn:  # fmt: skip
        """Store the question and begin the answer. `replace_turn` drops that turn and what followed first; `cont` goes
        on with an answer that was cut. Raises `Conflict` when the context is full and nobody said what to do."""
        found, shelf = await self._shelves.mine(actor, chat_id)
        chat = await self._rooms.of(actor, found)
        checks.may_use(self._gate, actor, chat.deployment)
        self._may_keep(shelf, chat)
        turns = await shelf.read(lambda db, ring: tables.turns_of(db, ring, chat.id))
        newest = turns[-1] if turns else None
        if cont:
            return await self._go_on(actor, request, chat, shelf, turns, forget_oldest)
        if replace_turn is not None:
            old = next((turn for turn in turns if turn.n == replace_turn), None)
            if old is None:
                raise NotFound(f"chat {chat.id} has no turn {replace_turn}")
            question = question or old.question
            turns = [turn for turn in turns if turn.n < replace_turn]
        checks.admit(chat, question)
        keep = await self._along(shelf, chat, turns, question, forget_oldest)
        turn = Turn(
            id=secrets.token_hex(8), chat=chat.id, n=turns[-1].n + 1 if turns else 1, question=question, answer="",
            state="waiting", asked_at=self._clock(),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[Chat, Any, Any]:
            self._may_keep(shelf, chat)  # it may have been marked since we looked
            with shelf.within(db) as at:
                now = checks.there(at, shelf, actor, chat.id)
                checks.unchanged(at, chat, newest)
                titled = msgspec.structs.replace(
                    now, updated_at=self._clock(), title=now.title or question.strip().splitlines()[0][:80]
                )
                if replace_turn is not None:
                    refuse_held(now)
                    tables.drop_from(at, chat.id, replace_turn)
                tables.change_chat(at, shelf.ring, titled)
                tables.put_turn(at, shelf.ring, turn, first=keep[0].n if keep else turn.n)
            return titled, None, {"turn": turn.n, "replaced": replace_turn is not None}

        now = await self._gate.act(actor, "chats.ask", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        publish(self._bus, now)
        self._begin(actor, chat, shelf, turn, messages(chat, keep, question))
        return turn

    async def _along(
        self, shelf: Shelf, chat: Chat, turns: list[Turn], question: str, forget_oldest: bool
    ) -> list[Turn]:
        """The turns that go along: what was forgotten once stays so. Raises `Conflict` if they don't fit."""
        if not turns:
            return []  # whether the question alone fits is for the engine to say: it counts, we guess
        last = turns[-1]
        first = await shelf.read(lambda db, _: tables.first_kept(db, last.id))
        keep = [turn for turn in turns if turn.n >= first]
        full = overfull(chat, keep, question, counted=last.state == "done")
        if not full:
            return keep
        if not forget_oldest and chat.on_full != "forget-oldest":
            raise Conflict(
                "the conversation no longer fits the context", full,
                "forget the oldest turns, begin a new chat, or deploy with more --ctx", context_full=True,
            )  # fmt: skip
        return fitting(chat, keep[1:], question)

    async def _go_on(
        self, actor: Actor, request: str, chat: Chat, shelf: Shelf, turns: list[Turn], forget_oldest: bool
    ) -> Turn:
        last = turns[-1] if turns else None
        if last is None or (last.state not in ("cut", "stopped", "failed") and last.finish != "length"):
            raise Conflict("there is nothing to go on with", "the last answer is complete")
        keep = await self._along(shelf, chat, turns, "", forget_oldest)
        if not keep:
            raise Conflict("the answer alone fills the context", todo="ask anew, or deploy with more --ctx")
        # A new id: the gateway knows an ended turn for a minute and refuses to begin it again.
        turn = msgspec.structs.replace(
            last, id=secrets.token_hex(8), state="waiting", reason="", finish="", ttft_ms=None, tokens_per_second=None
        )

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            self._may_keep(shelf, chat)
            with shelf.within(db) as at:
                checks.unchanged(at, chat, last)
                tables.drop_from(at, chat.id, turn.n)
                tables.put_turn(at, shelf.ring, turn, first=keep[0].n)
            return None, None, {"turn": turn.n, "goes_on": True}

        await self._gate.act(actor, "chats.ask", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        told = messages(chat, keep[:-1], last.question)
        if last.answer:
            told.append({"role": "assistant", "content": last.answer})
        self._begin(actor, chat, shelf, turn, told)
        return turn

    def _begin(self, actor: Actor, chat: Chat, shelf: Shelf, turn: Turn, told: list[dict[str, str]]) -> None:
        options = chat.options
        body: dict[str, Any] = {
            "model": chat.deployment,
            "messages": told,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for key in ("temperature", "top_p", "max_tokens", "seed"):
            if (value := getattr(options, key)) is not None:
                body[key] = value
        self._answers.ask(actor, turn, body, self.saved(shelf, chat.deployment))

    async def stop(self, actor: Actor, chat: str, turn: str, *, request: str = "") -> None:
        """End an answer; what came is kept. One that has ended stays as it is. Raises `NotFound`."""
        found, _ = await self._shelves.mine(actor, chat)
        live = self._in_flight(found, turn)
        if live is not None:
            effect = await self._gate.intent(actor, "chats.stop", f"chat:{found.id}", request or turn)
            await self._answers.stop(live, actor)
            await self._gate.outcome(effect, "done", after={"turn": live.answer.turn.n})

    async def stream(
        self, actor: Actor, chat: str, turn: str, offset: int = 0, *, ping_s: float = 0
    ) -> AsyncGenerator[dict[str, Any]]:
        """{"offset", "text"} from character `offset` on as it comes, then {"turn": Turn}.

        With `ping_s` a piece without text comes at once, when `waits` changes ("queued", "prompt", "" if that is not
        known or the answer has begun) or one's `place` in the queue and the seconds expected there (`wait_s`, 0 if
        nobody knows), and after so many seconds in which nothing else came.
        """
        found, shelf = await self._shelves.mine(actor, chat)
        live = self._in_flight(found, turn)
        async with contextlib.aclosing(self._answers.follow(turn, offset, ping_s)) as pieces:
            async for piece in pieces:
                yield piece
                offset = piece["offset"] + len(piece["text"])
        if live is not None and live.unkept:
            yield {"turn": live.answer.turn}
            return
        last = await shelf.read(lambda db, ring: tables.one_turn(db, ring, turn))
        if last is None or last.chat != found.id:
            raise NotFound(f"chat {chat} has no turn {turn!r}")
        if last.answer[offset:]:
            yield {"offset": offset, "text": last.answer[offset:]}
        if last.state not in ("waiting", "streaming"):  # else this daemon ends, and the next one goes on with it
            yield {"turn": last}

    def saved(self, shelf: Shelf, deployment: str) -> Save:
        async def save(answer: Answer) -> bool:
            turn, raw = answer.turn, answer.raw

            def put(db: sqlite3.Connection, ring: Ring) -> bool:
                if not shelf.private and self.unkept.refuses(turn.id, deployment):
                    return False
                tables.put_turn(db, ring, turn, raw_offset=raw)
                return True

            stored = await shelf.write(put)
            if not stored:
                self.unkept.look()
            return stored

        return save

    def _may_keep(self, shelf: Shelf, chat: Chat) -> None:
        if not shelf.private:
            checks.may_keep(self._gate, chat.deployment)

    def _in_flight(self, chat: Chat, turn: str) -> Live | None:
        """A turn of this chat that is being answered. Raises `NotFound` for one of another chat."""
        live = self._answers.get(turn)
        if live is not None and live.answer.turn.chat != chat.id:
            raise Unseen(f"chat {chat.id} has no turn {turn[:64]!r}", reason="that turn is one of another chat")
        return live


def publish(bus: Bus, chat: Chat) -> None:
    """For its owner alone, and yet: no title, no prompt, no question, no answer."""
    bare = msgspec.structs.replace(chat, title="", options=msgspec.structs.replace(chat.options, system=""))
    bus.publish("chat", f"chat:{chat.id}", bare, to=chat.owner)
