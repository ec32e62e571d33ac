"""The service of chats: keeps them for their owners, and says what of a conversation goes along with a question."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.access import Gate
from core.chats import checks, tables
from core.chats.answer import Answer
from core.chats.asking import Answers, Live, Save
from core.chats.context import fitting, messages, overfull
from core.chats.holds import refuse_held, refused_hold
from core.chats.rules import DAY_S, Rules
from core.chats.sealed import Ring
from core.chats.shelf import Shelf, Shelves, missed
from core.errors import Conflict, Invalid, NotFound, Unseen, missing
from core.events import Bus
from core.nouns import CORRAL, Actor, Chat, ChatDetail, ChatOptions, Deployment, Turn
from core.nouns.written import as_json, as_markdown
from core.store import Store

TITLE = 200
"""Characters of a title that are kept."""
PRIVATE_S = 3600.0
"""A private chat that nobody uses goes after so long."""
OWN = "chats.own"
"""The permission to keep chats; which deployment they may be with is asked for apart from it."""


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
        queued: Callable[[str], bool | None] = lambda turn: None,
    ) -> None:
        """`queued`: whether a turn has no slot yet; None if the gateway does not say."""
        self._store, self._gate, self._bus = store, gate, bus
        self._deployment = deployment
        self._clock = clock
        self._rules = rules
        self._shelves = Shelves(store, ring)
        self._started = False
        self._answers = Answers(gate, bus, gateway_socket=gateway_socket, clock=clock, queued=queued)

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Go on with the turns that were in flight when the daemon before ended, if they can be read."""
        self._started = True
        await self.opened()

    async def opened(self) -> None:
        """The master key is there."""
        if not self._started or not self._shelves.kept.ring.open:
            return
        for turn, offset, uid, owner, deployment in await self._shelves.kept.read(tables.unfinished):
            if self._answers.get(turn.id) is None:
                actor = Actor(uid=uid, name=owner, through="daemon")
                self._answers.resume(actor, turn, offset, deployment, self._saved(self._shelves.kept))

    async def close(self) -> None:
        """Leave the turns to the gateway; the next daemon goes on with them. Private ones end."""
        await self._answers.close()
        self._shelves.fleeting.close()

    def obey(self) -> None:
        """Rights have changed: end the answers of those who may not use the deployment any more."""
        self._answers.obey()

    # ---------------------------------------------------------------------------------------- chats

    async def create(
        self, actor: Actor, request: str, deployment: str, options: ChatOptions, title: str | None = None,
        question: str = "", *, private: bool = False,
    ) -> Chat:  # fmt: skip
        """`question` is what will be asked first: one that would be refused leaves no chat behind. `private`: it is
        kept in memory alone, as it is where a rule says that nothing is kept. Raises `NotFound` if there is no such
        deployment, `Conflict` if it is down and there is a question, or for a private one under legal hold."""
        self._may_use(actor, deployment)
        if not private:
            self._may_keep(deployment)
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
            checks.admit(await self._with_room(actor, chat), question)

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
        self._publish(chat)
        return await self._with_room(actor, chat)

    async def ls(self, actor: Actor) -> list[Chat]:
        """His own, newest first. Raises `Locked`."""
        return await self._with_rooms(actor, await self._shelves.ls(lambda db, ring: tables.chats_of(db, ring, actor)))

    async def search(self, actor: Actor, text: str) -> list[Chat]:
        if not text:
            raise Invalid("nothing to search for")
        found = await self._shelves.ls(lambda db, ring: tables.search(db, ring, actor, text))
        return await self._with_rooms(actor, found)

    async def get(self, actor: Actor, id: str) -> ChatDetail:
        """A chat and its turns, with what has come of the one in flight. Raises `NotFound`, `Locked`."""
        chat, shelf = await self._shelves.mine(actor, id)
        turns = await shelf.read(lambda db, ring: tables.turns_of(db, ring, chat.id))
        return ChatDetail(
            chat=await self._with_room(actor, chat), messages=tuple(map(self._answers.so_far, turns))
        )  # fmt: skip

    async def update(self, actor: Actor, request: str, id: str, **fields: Any) -> Chat:
        """Change title, options, on_full or deployment."""
        old, shelf = await self._shelves.mine(actor, id)
        if isinstance(fields.get("deployment"), str):
            self._may_use(actor, fields["deployment"])
            if not shelf.private:
                self._may_keep(fields["deployment"])
        if isinstance(fields.get("options"), ChatOptions):
            checks.in_range(fields["options"])
        if fields.get("on_full", "ask") not in ("ask", "forget-oldest"):
            raise Invalid("on_full is `ask` or `forget-oldest`")
        if isinstance(fields.get("title"), str):
            fields["title"] = fields["title"][:TITLE]

        def work(db: sqlite3.Connection) -> tuple[Chat, Any, Any]:
            with shelf.within(db) as at:
                now = checks.there(at, shelf, actor, old.id)
                if {"title", "options"} & fields.keys() and (now.title or now.options.system):
                    refuse_held(now)
                new = msgspec.structs.replace(now, **fields, updated_at=self._clock())
                tables.change_chat(at, shelf.ring, new)
            return new, None, {"changed": sorted(fields)}

        new = await self._gate.act(actor, "chats.update", f"chat:{old.id}", request, work, permission=OWN, on="*")
        self._publish(new)
        return await self._with_room(actor, new)

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

    # ---------------------------------------------------------------------------------------- turns

    async def ask(
        self, actor: Actor, request: str, chat_id: str, question: str, *, replace_turn: int | None = None,
        cont: bool = False, forget_oldest: bool = False,
    ) -> Turn:  # fmt: skip
        """Store the question and begin the answer. `replace_turn` drops that turn and what followed first; `cont` goes
        on with an answer that was cut. Raises `Conflict` when the context is full and nobody said what to do."""
        found, shelf = await self._shelves.mine(actor, chat_id)
        chat = await self._with_room(actor, found)
        self._may_use(actor, chat.deployment)
        if not shelf.private:
            self._may_keep(chat.deployment)
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

        self._publish(
            await self._gate.act(actor, "chats.ask", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        )
        self._begin(actor, chat, shelf, turn, messages(chat, keep, question))
        return turn

    def _may_keep(self, deployment: str) -> None:
        """Raises `Conflict` for a deployment that is sensitive: nothing that is said to it is written down."""
        if deployment in self._gate.rights.marks:
            raise Conflict(
                f"{deployment} is sensitive: no chat with it is kept", "its mark says so",
                "begin a private one (--private), or ask it through the gateway: neither keeps what is said",
            )  # fmt: skip

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
        self._answers.ask(actor, turn, body, self._saved(shelf))

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
        known or the answer has begun), and after so many seconds in which nothing else came.
        """
        found, shelf = await self._shelves.mine(actor, chat)
        self._in_flight(found, turn)
        async with contextlib.aclosing(self._answers.follow(turn, offset, ping_s)) as pieces:
            async for piece in pieces:
                yield piece
                offset = piece["offset"] + len(piece["text"])
        last = await shelf.read(lambda db, ring: tables.one_turn(db, ring, turn))
        if last is None or last.chat != found.id:
            raise NotFound(f"chat {chat} has no turn {turn!r}")
        if last.answer[offset:]:
            yield {"offset": offset, "text": last.answer[offset:]}
        if last.state not in ("waiting", "streaming"):  # else this daemon ends, and the next one goes on with it
            yield {"turn": last}

    def _saved(self, shelf: Shelf) -> Save:
        async def save(answer: Answer) -> None:
            turn, raw = answer.turn, answer.raw
            await shelf.write(lambda db, ring: tables.put_turn(db, ring, turn, raw_offset=raw))

        return save

    # ---------------------------------------------------------------------------------------- inside

    def _may_use(self, actor: Actor, deployment: str) -> None:
        """Raises `NotAllowed`, or `NotFound` for one that the actor may not see."""
        self._gate.require(actor, "deployments.use", f"deployment:{deployment}")

    def _in_flight(self, chat: Chat, turn: str) -> Live | None:
        """A turn of this chat that is being answered. Raises `NotFound` for one of another chat."""
        live = self._answers.get(turn)
        if live is not None and live.answer.turn.chat != chat.id:
            raise Unseen(f"chat {chat.id} has no turn {turn[:64]!r}", reason="that turn is one of another chat")
        return live

    async def _with_room(self, actor: Actor, chat: Chat) -> Chat:
        return (await self._with_rooms(actor, [chat]))[0]

    async def _with_rooms(self, actor: Actor, found: Sequence[Chat]) -> list[Chat]:
        """With the size of a slot now, each deployment looked at once, and the time at which a chat goes by the
        rules of now."""
        slots = {}
        for name in {chat.deployment for chat in found}:
            there = await self._deployment(name)
            slots[name] = there.spec.ctx // max(1, there.spec.parallel) if there else 0
        return [
            msgspec.structs.replace(
                chat, ctx_per_slot=slots[chat.deployment], goes_at=None if chat.held else self._goes_at(actor, chat)
            )
            for chat in found
        ]  # fmt: skip

    def _goes_at(self, actor: Actor, chat: Chat) -> float | None:
        if chat.private:
            return (chat.last_turn_at or chat.created_at) + PRIVATE_S
        days = self._rules.days(actor.uid, actor.name, actor.groups, chat.deployment)
        return None if days is None else (chat.last_turn_at or chat.created_at) + days * DAY_S

    def _publish(self, chat: Chat) -> None:
        """For its owner alone, and yet: no title, no prompt, no question, no answer."""
        bare = msgspec.structs.replace(chat, title="", options=msgspec.structs.replace(chat.options, system=""))
        self._bus.publish("chat", f"chat:{chat.id}", bare, to=chat.owner)
