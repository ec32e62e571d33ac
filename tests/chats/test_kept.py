"""What is kept of a chat, and how long: two terminals at once, going on, copies of the database, search, export."""

import asyncio
import json
import sqlite3
from contextlib import closing

import msgspec
import pytest

from core.chats import Chats
from core.errors import Conflict, NotFound
from core.nouns import Actor, Chat, ChatDetail, ChatOptions, Turn
from core.store import copies

ALICE = Actor(uid=1000, name="alice")
YEAR_S = 365 * 86400


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


def figures(prompt: int, made: int, finish: str = "stop") -> bytes:
    timings = {"cache_n": 0, "prompt_n": prompt, "predicted_n": made, "predicted_per_second": 50.0}
    told = {"choices": [{"delta": {}, "finish_reason": finish}], "timings": timings}
    return b"data: " + json.dumps(told).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def new(chats: Chats, title: str = "", **options: object) -> Chat:
    return await chats.create(ALICE, "r", "chat", ChatOptions(**options), title)


async def end(chats: Chats, turn: Turn) -> Turn:
    async with asyncio.timeout(10):
        async for piece in chats.turns.stream(ALICE, turn.chat, turn.id):
            if "turn" in piece:
                return piece["turn"]
    raise AssertionError("it did not end")


async def asked(chats: Chats, chat: Chat, question: str, **how: bool) -> Turn:
    return await end(chats, await chats.turns.ask(ALICE, "r", chat.id, question, **how))


async def both(*calls):
    return await asyncio.gather(*calls, return_exceptions=True)


async def test_a_removed_chat_does_not_come_back_with_a_rename_or_a_question(house, chats) -> None:
    for late in (
        lambda id: chats.update(ALICE, "r", id, title="back"),
        lambda id: chats.turns.ask(ALICE, "r", id, "back?"),
        lambda id: chats.rm(ALICE, "r", id),
    ):
        chat = await new(chats, "gone")
        removed, told = await both(chats.rm(ALICE, "r", chat.id), late(chat.id))
        assert removed is None
        assert isinstance(told, NotFound)
        assert await chats.ls(ALICE) == []
    assert house.gateway.asked == []


async def test_an_answer_asked_for_while_its_chat_is_removed_is_ended(house, chats, monkeypatch) -> None:
    """The question comes between the removal's look at what runs and its deletion."""
    house.gateway.script = [event("a"), None]
    chat = await new(chats)
    real, turns = chats._answers.stop_all, []

    async def look(*args) -> None:
        await real(*args)
        if not turns:
            turns.append(await chats.turns.ask(ALICE, "r", chat.id, "q"))

    monkeypatch.setattr(chats._answers, "stop_all", look)
    await chats.rm(ALICE, "r", chat.id)
    assert await chats.ls(ALICE) == []
    assert turns and turns[0].id in house.gateway.ended
    with pytest.raises(NotFound):
        await end(chats, turns[0])


async def test_changes_of_two_terminals_are_both_kept(house, chats) -> None:
    chat = await new(chats)
    done = await both(
        chats.update(ALICE, "r", chat.id, title="named"),
        chats.update(ALICE, "r", chat.id, on_full="forget-oldest"),
        chats.update(ALICE, "r", chat.id, options=ChatOptions(seed=7)),
        chats.turns.ask(ALICE, "r", chat.id, "what?"),
    )
    assert not [one for one in done if isinstance(one, Exception)]
    await end(chats, done[-1])
    found = (await chats.get(ALICE, chat.id)).chat
    assert (found.title, found.on_full, found.options.seed, found.turns) == ("named", "forget-oldest", 7, 1)


async def test_go_on_after_a_stop_and_after_the_token_limit(house, chats) -> None:
    chat = await new(chats, max_tokens=2)
    house.gateway.script = [event("one "), figures(4, 2, "length"), DONE]
    first = await asked(chats, chat, "count")
    assert first.finish == "length"
    house.gateway.script = [event("two "), None]
    turn = await chats.turns.ask(ALICE, "r", chat.id, "", cont=True)
    async with asyncio.timeout(10):
        async for piece in chats.turns.stream(ALICE, chat.id, turn.id, len("one ")):
            assert piece["text"] == "two "
            break
    await chats.turns.stop(ALICE, chat.id, turn.id)
    assert (await end(chats, turn)).state == "stopped"
    house.gateway.script = [event("three"), figures(8, 1), DONE]
    last = await asked(chats, chat, "", cont=True)
    assert (last.n, last.answer, last.state) == (1, "one two three", "done")
    assert [m["content"] for m in house.gateway.asked[-1]["messages"]] == ["count", "one two "]


async def test_going_on_with_an_answer_that_fills_the_context_is_told(house, chats) -> None:
    chat = await new(chats)
    house.gateway.script = [event("x" * 4000), figures(10, 500, "length"), DONE]
    await asked(chats, chat, "long")
    with pytest.raises(Conflict) as full:
        await chats.turns.ask(ALICE, "r", chat.id, "", cont=True)
    assert full.value.details["context_full"] is True
    with pytest.raises(Conflict, match="alone fills"):
        await chats.turns.ask(ALICE, "r", chat.id, "", cont=True, forget_oldest=True)


async def test_each_choice_when_the_context_is_full(house, chats) -> None:
    """Forget once, forget always, or a new chat; and the refused question is not stored."""
    house.gateway.script = [event("y"), figures(400, 100), DONE]
    for choice in ("once", "always", "new"):
        chat = await new(chats)
        await asked(chats, chat, "fills it")
        with pytest.raises(Conflict):
            await chats.turns.ask(ALICE, "r", chat.id, "next")
        assert len((await chats.get(ALICE, chat.id)).messages) == 1
        if choice == "new":
            chat = await new(chats)
        elif choice == "always":
            await chats.update(ALICE, "r", chat.id, on_full="forget-oldest")
        for _ in range(2 if choice == "always" else 1):
            await asked(chats, chat, "next", forget_oldest=choice == "once")
            assert [m["content"] for m in house.gateway.asked[-1]["messages"]] == ["next"]


async def test_regenerate_asks_the_same_again_with_what_came_before(house, chats) -> None:
    chat = await new(chats, seed=3)
    house.gateway.script = [event("first"), DONE]
    await asked(chats, chat, "one")
    await asked(chats, chat, "two")
    house.gateway.script = [event("better"), DONE]
    again = await end(chats, await chats.turns.ask(ALICE, "r", chat.id, "", replace_turn=2))
    assert (again.n, again.question, again.answer) == (2, "two", "better")
    assert house.gateway.asked[-1] == house.gateway.asked[-2]
    assert [t.answer for t in (await chats.get(ALICE, chat.id)).messages] == ["first", "better"]


async def test_chats_are_kept_until_they_are_removed(house) -> None:
    first = house.chats()
    old = await new(first, "old")
    await asked(first, old, "kept?")
    house.now += 3 * YEAR_S
    young = await new(first, "young")
    await first.close()
    second = house.chats()
    await second.start()
    assert [chat.id for chat in await second.ls(ALICE)] == [young.id, old.id]
    assert (await second.get(ALICE, old.id)).messages[0].answer == "Hello"
    house.now += 1
    await asked(second, old, "and now?")
    assert [chat.id for chat in await second.ls(ALICE)] == [old.id, young.id]
    await second.close()


async def test_a_deleted_chat_is_in_no_copy_of_the_database(house, chats) -> None:
    secret = "gnu-crossing-5513"
    chat = await new(chats, f"about {secret}", system=secret)
    other = await new(chats, "stays")
    await asked(chats, chat, f"what is {secret}?")
    with closing(sqlite3.connect(house.paths.database)) as db:
        copy = copies.make(db, house.paths.backups, house.now)
    boxes = house.boxes(chat.id)
    assert len(boxes) == 3 and all(box in copy.read_bytes() for box in boxes)
    await chats.rm(ALICE, "r", chat.id)
    files = [path for path in house.paths.root.rglob("*") if path.is_file()]
    assert [path for path in files for box in boxes if box[:40] in path.read_bytes()] == []
    assert house.holding(secret) == []
    with closing(sqlite3.connect(copy)) as db:
        assert [row[0] for row in db.execute("SELECT id FROM chats")] == [other.id]


async def test_search_is_for_any_case_of_any_script(house, chats) -> None:
    house.gateway.script = [event("Äpfel und STRASSE"), DONE]
    chat = await new(chats, "Ωmega")
    await asked(chats, chat, "Ничего?")
    for text in ("äpfel", "straße", "ωMEGA", "НИЧЕГО"):
        found = await chats.search(ALICE, text)
        assert [each.id for each in found] == [chat.id], text
    assert await chats.search(ALICE, "birnen") == []


async def test_exports_hold_all_and_json_can_be_read_back(house, chats) -> None:
    chat = await new(chats, system="Be short.\nBe kind.", temperature=0.5)
    await asked(chats, chat, "# a heading?")
    house.gateway.script = [event("half"), None]
    turn = await chats.turns.ask(ALICE, "r", chat.id, "second")
    async with asyncio.timeout(10):
        async for _ in chats.turns.stream(ALICE, chat.id, turn.id):
            break
    await chats.turns.stop(ALICE, chat.id, turn.id)
    detail = await chats.get(ALICE, chat.id)
    assert msgspec.json.decode(await chats.export(ALICE, chat.id, "json"), type=ChatDetail) == detail
    text = await chats.export(ALICE, chat.id, "md")
    assert text.index("> Be short.\n> Be kind.") < text.index("# a heading?\n\n## Answer\n\nHello")
    assert text.index("## Question\n\nsecond") < text.index("half\n\n*(stopped)*")


async def test_the_beginning_of_an_id_is_enough_if_it_is_the_only_one(house, chats) -> None:
    chat = await new(chats)
    assert (await chats.get(ALICE, chat.id[:4])).chat.id == chat.id
    with pytest.raises(NotFound):
        await chats.get(ALICE, chat.id[:3])
