"""The service of chats: keeps them for their owners, and says what of a conversation goes along with a question."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from core.access import Gate
from core.chats import tables
from core.chats.answer import Answer
from core.chats.asking import Answers, Live
from core.chats.context import fitting, messages, overfull, too_long
from core.chats.retention import DAY_S
from core.errors import Conflict, Invalid, NotFound, Unseen, missing
from core.events import Bus
from core.nouns import Actor, Chat, ChatDetail, ChatOptions, Deployment, Turn
from core.store import Store

QUESTION_LIMIT = 1 << 20
TITLE = 200
"""Characters of a title that are kept."""
OWN = "chats.own"
"""The permission to keep chats; which deployment they may be with is asked for apart from it."""


class Chats:
    """Kept per user (uid). Nobody sees another's chats; not found is all that he is told."""

    def __init__(
        self,
        store: Store,
        gate: Gate,
        bus: Bus,
        *,
        gateway_socket: Path,
        deployment: Callable[[str], Awaitable[Deployment | None]],
        clock: Callable[[], float] = time.time,
        keep_days: Callable[[], int] = lambda: 0,
        queued: Callable[[str], bool | None] = lambda turn: None,
    ) -> None:
        """`queued`: whether a turn has no slot yet; None if the gateway does not say."""
        self._store, self._gate, self._bus = store, gate, bus
        self._deployment = deployment
        self._clock = clock
        self._keep_days = keep_days
        self._answers = Answers(gate, bus, gateway_socket=gateway_socket, clock=clock, queued=queued)

    # ---------------------------------------------------------------------------------------- its life

    async def start(self) -> None:
        """Go on with the turns that were in flight when the daemon before ended."""
        for turn, offset, uid, owner, deployment in await self._store.read(tables.unfinished):
            actor = Actor(uid=uid, name=owner, through="daemon")
            self._answers.resume(actor, turn, offset, deployment, self._save)

    async def close(self) -> None:
        """Leave the turns to the gateway; the next daemon goes on with them."""
        await self._answers.close()

    def obey(self) -> None:
        """Rights have changed: end the answers of those who may not use the deployment any more."""
        self._answers.obey()

    # ---------------------------------------------------------------------------------------- chats

    async def create(
        self, actor: Actor, request: str, deployment: str, options: ChatOptions, title: str | None = None,
        question: str = "",
    ) -> Chat:  # fmt: skip
        """`question` is what will be asked first: one that would be refused leaves no chat behind. Raises `NotFound` if
        there is no such deployment, `Conflict` if it is down and there is a question."""
        self._may_use(actor, deployment)
        self._may_keep(deployment)
        there = await self._deployment(deployment)
        if there is None:
            raise missing("deployment", deployment)
        if question and there.state in ("stopped", "failed"):  # others may be ready before the answer is made
            raise Conflict(f"{deployment} is {there.state}", there.reason, _mended(there))
        _check(options)
        now = self._clock()
        chat = Chat(
            id=secrets.token_hex(5), title=(title or "")[:TITLE], deployment=deployment, options=options,
            owner=actor.name, created_at=now, updated_at=now,
        )  # fmt: skip
        if question:
            _admit(await self._with_room(chat), question)

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            tables.put_chat(db, chat, actor.uid)
            return None, None, {"deployment": deployment}

        await self._gate.act(actor, "chats.create", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        self._publish(chat)
        return await self._with_room(chat)

    async def ls(self, actor: Actor) -> list[Chat]:
        return await self._with_rooms(await self._store.read(lambda db: tables.chats_of(db, actor)))

    async def search(self, actor: Actor, text: str) -> list[Chat]:
        if not text:
            raise Invalid("nothing to search for")
        return await self._with_rooms(await self._store.read(lambda db: tables.search(db, actor, text)))

    async def get(self, actor: Actor, id: str) -> ChatDetail:
        """A chat and its turns, with what has come of the one in flight. Raises `NotFound`."""
        chat = await self._with_room(await self._mine(actor, id))
        turns = await self._store.read(lambda db: tables.turns_of(db, chat.id))
        return ChatDetail(chat=chat, messages=tuple(map(self._answers.so_far, turns)))

    async def update(self, actor: Actor, request: str, id: str, **fields: Any) -> Chat:
        """Change title, options, on_full or deployment."""
        old = await self._mine(actor, id)
        if isinstance(fields.get("deployment"), str):
            self._may_use(actor, fields["deployment"])
            self._may_keep(fields["deployment"])
        if isinstance(fields.get("options"), ChatOptions):
            _check(fields["options"])
        if fields.get("on_full", "ask") not in ("ask", "forget-oldest"):
            raise Invalid("on_full is `ask` or `forget-oldest`")
        if isinstance(fields.get("title"), str):
            fields["title"] = fields["title"][:TITLE]

        def work(db: sqlite3.Connection) -> tuple[Chat, Any, Any]:
            new = msgspec.structs.replace(_there(db, actor, old.id), **fields, updated_at=self._clock())
            tables.change_chat(db, new)
            return new, None, {"changed": sorted(fields)}

        new = await self._gate.act(actor, "chats.update", f"chat:{old.id}", request, work, permission=OWN, on="*")
        self._publish(new)
        return await self._with_room(new)

    async def rm(self, actor: Actor, request: str, id: str) -> None:
        """Delete for good: pages are overwritten, in copies of the database too, and the write-ahead log is cut."""
        chat = await self._mine(actor, id)
        await self._answers.stop_all(chat.id, actor)

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            turns = _there(db, actor, chat.id).turns
            tables.delete_chat(db, chat.id)
            return None, {"turns": turns}, None

        await self._gate.act(actor, "chats.rm", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        await self._answers.stop_all(chat.id, actor)  # what was asked between the first look and the deletion
        await self._store.erase(lambda db: tables.delete_chat(db, chat.id))
        self._bus.publish("chat.gone", f"chat:{chat.id}", to=chat.owner)

    async def export(self, actor: Actor, id: str, format: str) -> str:
        detail = await self.get(actor, id)
        if format == "json":
            return msgspec.json.format(msgspec.json.encode(detail), indent=2).decode() + "\n"
        lines = [f"# {detail.chat.title or detail.chat.id}", "", f"Deployment: {detail.chat.deployment}", ""]
        if detail.chat.options.system:
            lines += ["> " + line for line in detail.chat.options.system.splitlines()] + [""]
        for turn in detail.messages:
            lines += ["## Question", "", turn.question, "", "## Answer", "", turn.answer, ""]
            if turn.state != "done":
                lines += [f"*({turn.state}{': ' + turn.reason if turn.reason else ''})*", ""]
        return "\n".join(lines)

    # ---------------------------------------------------------------------------------------- turns

    async def ask(
        self, actor: Actor, request: str, chat_id: str, question: str, *, replace_turn: int | None = None,
        cont: bool = False, forget_oldest: bool = False,
    ) -> Turn:  # fmt: skip
        """Store the question and begin the answer. `replace_turn` drops that turn and what followed first; `cont` goes
        on with an answer that was cut. Raises `Conflict` when the context is full and nobody said what to do."""
        chat = await self._with_room(await self._mine(actor, chat_id))
        self._may_use(actor, chat.deployment)
        self._may_keep(chat.deployment)
        turns = await self._store.read(lambda db: tables.turns_of(db, chat.id))
        newest = turns[-1] if turns else None
        if cont:
            return await self._go_on(actor, request, chat, turns, forget_oldest)
        if replace_turn is not None:
            old = next((turn for turn in turns if turn.n == replace_turn), None)
            if old is None:
                raise NotFound(f"chat {chat.id} has no turn {replace_turn}")
            question = question or old.question
            turns = [turn for turn in turns if turn.n < replace_turn]
        _admit(chat, question)
        keep = await self._kept(chat, turns, question, forget_oldest)
        turn = Turn(
            id=secrets.token_hex(8), chat=chat.id, n=turns[-1].n + 1 if turns else 1, question=question, answer="",
            state="waiting", asked_at=self._clock(),
        )  # fmt: skip

        def work(db: sqlite3.Connection) -> tuple[Chat, Any, Any]:
            now = _there(db, actor, chat.id)
            _unchanged(db, chat, newest)
            titled = msgspec.structs.replace(
                now, updated_at=self._clock(), title=now.title or question.strip().splitlines()[0][:80]
            )
            if replace_turn is not None:
                tables.drop_from(db, chat.id, replace_turn)
            tables.change_chat(db, titled)
            tables.put_turn(db, turn, first=keep[0].n if keep else turn.n)
            return titled, None, {"turn": turn.n, "replaced": replace_turn is not None}

        self._publish(
            await self._gate.act(actor, "chats.ask", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        )
        self._begin(actor, chat, turn, messages(chat, keep, question))
        return turn

    def _may_keep(self, deployment: str) -> None:
        """Raises `Conflict` for a deployment that is sensitive: nothing that is said to it is written down."""
        if deployment in self._gate.rights.marks:
            raise Conflict(
                f"{deployment} is sensitive: no chat with it is kept", "its mark says so",
                "ask it through the gateway, which keeps nothing of what is said",
            )  # fmt: skip

    async def _kept(self, chat: Chat, turns: list[Turn], question: str, forget_oldest: bool) -> list[Turn]:
        """The turns that go along: what was forgotten once stays so. Raises `Conflict` if they don't fit."""
        if not turns:
            return []  # whether the question alone fits is for the engine to say: it counts, we guess
        last = turns[-1]
        first = await self._store.read(lambda db: tables.first_kept(db, last.id))
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

    async def _go_on(self, actor: Actor, request: str, chat: Chat, turns: list[Turn], forget_oldest: bool) -> Turn:
        last = turns[-1] if turns else None
        if last is None or (last.state not in ("cut", "stopped", "failed") and last.finish != "length"):
            raise Conflict("there is nothing to go on with", "the last answer is complete")
        keep = await self._kept(chat, turns, "", forget_oldest)
        if not keep:
            raise Conflict("the answer alone fills the context", todo="ask anew, or deploy with more --ctx")
        # A new id: the gateway knows an ended turn for a minute and refuses to begin it again.
        turn = msgspec.structs.replace(
            last, id=secrets.token_hex(8), state="waiting", reason="", finish="", ttft_ms=None, tokens_per_second=None
        )

        def work(db: sqlite3.Connection) -> tuple[None, Any, Any]:
            _unchanged(db, chat, last)
            tables.drop_from(db, chat.id, turn.n)
            tables.put_turn(db, turn, first=keep[0].n)
            return None, None, {"turn": turn.n, "goes_on": True}

        await self._gate.act(actor, "chats.ask", f"chat:{chat.id}", request, work, permission=OWN, on="*")
        told = messages(chat, keep[:-1], last.question)
        if last.answer:
            told.append({"role": "assistant", "content": last.answer})
        self._begin(actor, chat, turn, told)
        return turn

    def _begin(self, actor: Actor, chat: Chat, turn: Turn, told: list[dict[str, str]]) -> None:
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
        self._answers.ask(actor, turn, body, self._save)

    async def stop(self, actor: Actor, chat: str, turn: str, *, request: str = "") -> None:
        """End an answer; what came is kept. One that has ended stays as it is. Raises `NotFound`."""
        found = await self._mine(actor, chat)
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
        found = await self._mine(actor, chat)
        self._in_flight(found, turn)
        async with contextlib.aclosing(self._answers.follow(turn, offset, ping_s)) as pieces:
            async for piece in pieces:
                yield piece
                offset = piece["offset"] + len(piece["text"])
        last = await self._store.read(lambda db: tables.one_turn(db, turn))
        if last is None or last.chat != found.id:
            raise NotFound(f"chat {chat} has no turn {turn!r}")
        if last.answer[offset:]:
            yield {"offset": offset, "text": last.answer[offset:]}
        if last.state not in ("waiting", "streaming"):  # else this daemon ends, and the next one goes on with it
            yield {"turn": last}

    async def _save(self, answer: Answer) -> None:
        turn, raw = answer.turn, answer.raw
        await self._store.transact(lambda db: tables.put_turn(db, turn, raw_offset=raw))

    # ---------------------------------------------------------------------------------------- inside

    def _may_use(self, actor: Actor, deployment: str) -> None:
        """Raises `NotAllowed`, or `NotFound` for one that the actor may not see."""
        self._gate.require(actor, "deployments.use", f"deployment:{deployment}")

    async def _mine(self, actor: Actor, id: str) -> Chat:
        chat = await self._store.read(lambda db: tables.one_chat(db, actor, id))
        if chat is None:
            whose = await self._store.read(lambda db: tables.whose(db, id))
            raise missing("chat", id, reason=f"{actor.name} asked for a chat of {whose}" if whose else "")
        return chat

    def _in_flight(self, chat: Chat, turn: str) -> Live | None:
        """A turn of this chat that is being answered. Raises `NotFound` for one of another chat."""
        live = self._answers.get(turn)
        if live is not None and live.answer.turn.chat != chat.id:
            raise Unseen(f"chat {chat.id} has no turn {turn[:64]!r}", reason="that turn is one of another chat")
        return live

    async def _with_room(self, chat: Chat) -> Chat:
        return (await self._with_rooms([chat]))[0]

    async def _with_rooms(self, found: Sequence[Chat]) -> list[Chat]:
        """With the size of a slot now, each deployment looked at once, and the time at which a chat goes by the
        settings of now."""
        slots = {}
        for name in {chat.deployment for chat in found}:
            there = await self._deployment(name)
            slots[name] = there.spec.ctx // max(1, there.spec.parallel) if there else 0
        days = self._keep_days()
        return [
            msgspec.structs.replace(
                chat, ctx_per_slot=slots[chat.deployment],
                goes_at=(chat.last_turn_at or chat.created_at) + days * DAY_S if days else None,
            )
            for chat in found
        ]  # fmt: skip

    def _publish(self, chat: Chat) -> None:
        """For its owner alone, and yet: no title, no prompt, no question, no answer."""
        bare = msgspec.structs.replace(chat, title="", options=msgspec.structs.replace(chat.options, system=""))
        self._bus.publish("chat", f"chat:{chat.id}", bare, to=chat.owner)


def _there(db: sqlite3.Connection, actor: Actor, id: str) -> Chat:
    """The chat as it is in this transaction: raises `NotFound` for one that was removed meanwhile."""
    found = tables.one_chat(db, actor, id)
    if found is None:
        raise NotFound(f"no chat {id!r}", "it was removed", "see `corral chats ls`")
    return found


def _unchanged(db: sqlite3.Connection, chat: Chat, newest: Turn | None) -> None:
    """Two terminals may ask at once: raises `Conflict` for the second."""
    found = tables.newest(db, chat.id)
    if found is not None and found[1] in ("waiting", "streaming"):
        raise Conflict("an answer is being made in this chat", todo="wait for it, or stop it")
    if (found[0] if found else None) != (newest.id if newest else None):
        raise Conflict("the chat has changed meanwhile", todo="look at it again")


def _admit(chat: Chat, question: str) -> None:
    """Raises `Invalid` for a question that no turn of `chat` can hold."""
    if not question.strip() or len(question.encode()) > QUESTION_LIMIT:
        raise Invalid("the question is empty or over 1 MiB")
    if alone := too_long(chat, question):
        raise Invalid(
            "the question alone is too long for this deployment", alone, "shorten it, or deploy with more --ctx"
        )


def _mended(deployment: Deployment) -> str:
    name = deployment.spec.name
    return f"corral start {name}" if deployment.state == "stopped" else f"corral explain {name}"


def _check(options: ChatOptions) -> None:
    for field, low, high in (
        ("temperature", 0, 5),
        ("top_p", 0, 1),
        ("max_tokens", 1, 1 << 20),
        ("seed", 0, 2**32 - 1),
    ):
        value = getattr(options, field)
        if value is not None and not low <= value <= high:
            raise Invalid(f"{field} is {value}", f"it may be {low} to {high}")
