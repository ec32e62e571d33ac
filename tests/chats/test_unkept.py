"""A deployment is marked as sensitive while it answers: the answer ends, leaves nothing, and its owner is told."""

import asyncio
import json
import sqlite3
from contextlib import closing

import msgspec
import pytest

from core.access import Rights
from core.chats import Chats
from core.errors import Conflict, NotFound, StoreError
from core.nouns import Actor, Chat, ChatOptions, Mark, Turn

ALICE = Actor(uid=1000, name="alice")
MARK = Mark(deployment="chat", labels=("zone=secure",), by="root", at=0.0)


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


class Followed:
    """A turn and what its reader gets, from its beginning on."""

    def __init__(self, chats: Chats, turn: Turn) -> None:
        self.turn, self.text, self.last = turn, "", None
        self._begun = asyncio.Event()
        self._task = asyncio.create_task(self._follow(chats))

    async def _follow(self, chats: Chats) -> None:
        async for piece in chats.turns.stream(ALICE, self.turn.chat, self.turn.id):
            self.text += piece.get("text", "")
            self.last = piece.get("turn")
            self._begun.set()

    async def begun(self) -> None:
        async with asyncio.timeout(10):
            await self._begun.wait()

    async def end(self) -> Turn:
        async with asyncio.timeout(10):
            await self._task
        assert self.last is not None, "its reader was told of no end"
        return self.last


def mark(house, chats: Chats) -> None:
    """As core.deployments.sensitive does it: in force first, then told."""
    house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, marks=[MARK])
    chats.obey()


async def settle(chats: Chats) -> None:
    async with asyncio.timeout(10):
        while (task := chats.turns.unkept._task) is not None and not task.done():
            await asyncio.sleep(0.01)


def rows(house) -> list[tuple[str, int, str]]:
    with closing(sqlite3.connect(house.paths.database)) as db:
        return db.execute("SELECT chat, n, state FROM turns ORDER BY chat, n").fetchall()


def left(house, boxes: list[bytes]) -> list[str]:
    """Files in which the begin of one of these still stands."""
    files = [path for path in house.paths.root.rglob("*") if path.is_file()]
    return [path.name for path in files for box in boxes if box[:40] in path.read_bytes()]


async def in_the_making(house, chats: Chats, chat: Chat, **how) -> Followed:
    """An answer of which a part is on the disk, and the rest waits."""
    house.gateway.script = [event("half of " + "it " * 500), None, event("the rest"), DONE]
    house.gateway.go.clear()
    turn = await chats.turns.ask(ALICE, "r", chat.id, how.pop("question", "why?"), **how)
    followed = Followed(chats, turn)
    await followed.begun()
    async with asyncio.timeout(10):
        while not [row for row in rows(house) if row[2] == "streaming"]:
            await asyncio.sleep(0.01)
    return followed


async def answered(house, chats: Chats, chat: Chat, question: str) -> Turn:
    house.gateway.script = [event("as before"), DONE]
    return await Followed(chats, await chats.turns.ask(ALICE, "r", chat.id, question)).end()


async def new(chats: Chats) -> Chat:
    return await chats.create(ALICE, "r", "chat", ChatOptions())


async def recorded(house) -> list[tuple[str, str, object, object]]:
    found = [each for each in await house.audit.ls(limit=100) if each.verb == "chats.unkeep"]
    return [(each.object, each.reason, each.before, each.after) for each in found]


async def test_it_ends_and_question_and_answer_leave_every_file(house, chats) -> None:
    chat = await new(chats)
    await answered(house, chats, chat, "before the mark")
    followed = await in_the_making(house, chats, chat)
    boxes = house.boxes(chat.id)[3:]
    assert len(boxes) == 2 and left(house, boxes)
    mark(house, chats)
    told = await followed.end()
    assert told.state == "unkept" and "marked as sensitive" in told.reason and "nothing" in told.reason
    await settle(chats)
    assert rows(house) == [(chat.id, 1, "done")] and left(house, boxes) == []
    assert followed.turn.id in house.gateway.ended
    (record,) = await recorded(house)
    assert record[0] == f"chat:{chat.id}" and "sensitive" in record[1] and record[2] == {"turn": 2, "chat": False}
    assert [turn.question for turn in (await chats.get(ALICE, chat.id)).messages] == ["before the mark"]


async def test_a_chat_of_which_nothing_is_left_goes_with_its_title(house, chats) -> None:
    chat = await new(chats)
    followed = await in_the_making(house, chats, chat, question="a title that tells")
    boxes = house.boxes(chat.id)
    mark(house, chats)
    await followed.end()
    await settle(chats)
    with pytest.raises(NotFound):
        await chats.get(ALICE, chat.id)
    assert len(boxes) == 3 and left(house, boxes) == []


async def test_a_regenerated_answer_leaves_nothing_of_either(house, chats) -> None:
    chat = await new(chats)
    await answered(house, chats, chat, "one")
    await answered(house, chats, chat, "two")
    before = house.boxes(chat.id)[3:]
    followed = await in_the_making(house, chats, chat, question="", replace_turn=2)
    boxes = house.boxes(chat.id)[3:]
    mark(house, chats)
    await followed.end()
    await settle(chats)
    assert left(house, before + boxes) == [] and rows(house) == [(chat.id, 1, "done")]


async def test_what_comes_between_the_mark_and_the_end_is_not_written(house, chats) -> None:
    """The answer is over before anybody could end it."""
    chat = await new(chats)
    followed = await in_the_making(house, chats, chat)
    boxes = house.boxes(chat.id)
    house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, marks=[MARK])
    house.gateway.go.set()
    told = await followed.end()
    assert told.state == "unkept" and "not kept" in told.reason
    await settle(chats)
    assert rows(house) == [] and left(house, boxes) == []


async def test_the_next_daemon_does_not_take_it_up(house) -> None:
    before = house.chats()
    await before.start()
    chat = await new(before)
    followed = await in_the_making(house, before, chat)
    boxes = house.boxes(chat.id)
    await before.close()
    house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, marks=[MARK])
    house.ring.lock("the key is away", "put it back")
    after = house.chats()
    await after.start()
    assert rows(house) == [] and left(house, boxes) == [] and followed.turn.id in house.gateway.ended
    await after.close()


async def test_what_was_there_before_stays_under_legal_hold(house, chats) -> None:
    chat = await new(chats)
    followed = await in_the_making(house, chats, chat)
    await house.holds.add(ALICE, "r", chat.id, "a case")
    boxes = house.boxes(chat.id)
    mark(house, chats)
    assert "under legal hold" in (await followed.end()).reason
    await settle(chats)
    assert rows(house) == [(chat.id, 1, "stopped")] and house.boxes(chat.id) == boxes
    assert [each[3] for each in await recorded(house)] == [{"turn": 1, "held": True}]


async def test_a_private_answer_goes_on(house, chats) -> None:
    chat = await chats.create(ALICE, "r", "chat", ChatOptions(), private=True)
    house.gateway.script = [event("half"), None, event(" and whole"), DONE]
    followed = Followed(chats, await chats.turns.ask(ALICE, "r", chat.id, "why?"))
    await followed.begun()
    mark(house, chats)
    house.gateway.go.set()
    assert (await followed.end()).state == "done" and followed.text == "half and whole"


async def test_nothing_is_asked_any_more_though_it_was_looked_at_before(house, chats) -> None:
    """The mark comes between the look and the transaction."""
    chat = await new(chats)
    await answered(house, chats, chat, "one")
    transact = house.store.transact

    async def late(fn):
        house.gate.rights = Rights(mode="user", owner_uid=ALICE.uid, marks=[MARK])
        return await transact(fn)

    house.store.transact = late
    with pytest.raises(Conflict, match="sensitive"):
        await chats.turns.ask(ALICE, "r", chat.id, "two")
    house.store.transact = transact
    assert len(rows(house)) == 1


async def test_a_disk_that_is_full_does_not_keep_it(house, chats) -> None:
    chat = await new(chats)
    followed = await in_the_making(house, chats, chat)
    waited, act = [], house.gate.act

    async def full(*args, **how):
        house.gate.act = act
        raise StoreError("the disk is full")

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    house.gate.act = full
    chats.turns.unkept._pause = pause
    mark(house, chats)
    await followed.end()
    await settle(chats)
    assert waited == [5.0] and rows(house) == []


async def test_a_chat_does_not_change_its_deployment_while_it_answers(house, chats) -> None:
    """What is kept would depend on which of the two is asked."""
    chat = await new(chats)
    followed = await in_the_making(house, chats, chat)
    with pytest.raises(Conflict, match="being made"):
        await chats.update(ALICE, "r", chat.id, deployment="other")
    house.gateway.go.set()
    assert msgspec.structs.replace(await followed.end(), answer="").state == "done"
