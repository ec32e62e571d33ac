"""A turn belongs to the daemon: stored as it grows, taken up after a restart, kept when it is cut, deleted for good."""

import asyncio
import json
import sqlite3
from contextlib import closing

import pytest

from core.chats import Chats, tables
from core.errors import Conflict, Invalid, NotFound, Unseen
from core.nouns import Actor, Chat, ChatOptions, Turn

ALICE = Actor(uid=1000, name="alice")
ROOT = Actor(uid=0, name="root")
MALLORY = Actor(uid=1001, name="mallory")


def event(text: str, end: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + end


def figures(prompt: int, made: int, finish: str = "stop") -> bytes:
    fields = {
        "choices": [{"delta": {}, "finish_reason": finish}],
        "timings": {"cache_n": 0, "prompt_n": prompt, "predicted_n": made, "predicted_per_second": 50.0},
    }
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


async def new(chats: Chats, **options) -> Chat:
    return await chats.create(ALICE, "r", "chat", ChatOptions(**options))


async def whole(chats: Chats, turn: Turn, offset: int = 0) -> tuple[str, Turn | None]:
    """Follow a turn to its end: text and the turn, None if the stream ended without it."""
    text = ""
    async with asyncio.timeout(10):
        async for piece in chats.turns.stream(ALICE, turn.chat, turn.id, offset):
            if "turn" in piece:
                return text, piece["turn"]
            assert piece["offset"] == offset + len(text)
            text += piece["text"]
    return text, None


async def first_piece(chats: Chats, turn: Turn) -> str:
    async with asyncio.timeout(10):
        async for piece in chats.turns.stream(ALICE, turn.chat, turn.id):
            return piece["text"]
    raise AssertionError("nothing came")


def stored(house, turn: str) -> tuple[str, str, int]:
    with closing(sqlite3.connect(house.paths.database)) as db:
        found = tables.one_turn(db, house.ring, turn)
        (raw,) = db.execute("SELECT raw_offset FROM turns WHERE id = ?", (turn,)).fetchone()
    return found.state, found.answer, raw


async def test_an_answer_is_streamed_and_stored_with_its_figures(house, chats) -> None:
    chat = await new(chats, system="Be short.", temperature=0.5, max_tokens=9, seed=4)
    turn = await chats.turns.ask(ALICE, "r", chat.id, "Hi?")
    text, last = await whole(chats, turn)
    assert text == "Hello" == last.answer
    assert (last.state, last.finish, last.prompt_tokens, last.cached_tokens) == ("done", "stop", 10, 3)
    assert (last.answer_tokens, last.tokens_per_second, last.context_tokens) == (2, 88.4, 12)
    assert last.ttft_ms is not None
    (asked,) = house.gateway.asked
    assert asked["messages"] == [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Hi?"}]
    assert (asked["model"], asked["stream"], asked["temperature"], asked["max_tokens"], asked["seed"]) == (
        "chat", True, 0.5, 9, 4,
    )  # fmt: skip
    assert "top_p" not in asked
    assert house.gateway.actors == ["1000:alice"]
    detail = await chats.get(ALICE, chat.id)
    assert (detail.chat.title, detail.chat.turns, detail.chat.context_tokens) == ("Hi?", 1, 12)
    assert [each.ctx_per_slot for each in await chats.ls(ALICE)] == [detail.chat.ctx_per_slot]
    assert [each.ctx_per_slot for each in await chats.search(ALICE, "Hi")] == [detail.chat.ctx_per_slot] != [0]


async def test_the_conversation_so_far_goes_along(house, chats) -> None:
    chat = await new(chats)
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "one"))
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "two"))
    assert [(m["role"], m["content"]) for m in house.gateway.asked[1]["messages"]] == [
        ("user", "one"), ("assistant", "Hello"), ("user", "two"),
    ]  # fmt: skip


async def test_a_reader_that_comes_late_or_again_gets_what_it_lacks(house, chats) -> None:
    house.gateway.script = [event("one "), None, event("two"), DONE]
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    assert await first_piece(chats, turn) == "one "  # and this reader goes away
    late = asyncio.create_task(whole(chats, turn, 2))
    house.gateway.go.set()
    text, last = await late
    assert text == "e two"
    assert last.answer == "one two"
    assert (await whole(chats, turn))[0] == "one two"


async def test_pieces_are_stored_by_second_or_kib_and_not_by_token(house, chats) -> None:
    house.gateway.script = [event("x" * 10) for _ in range(300)] + [None, DONE]
    commits = 0

    def count(*_) -> None:
        nonlocal commits
        commits += 1

    chat = await new(chats)
    await house.store.transact(lambda db: db.set_trace_callback(lambda sql: "COMMIT" in sql and count()))
    commits = 0
    turn = await chats.turns.ask(ALICE, "r", chat.id, "q")
    text = ""
    async for piece in chats.turns.stream(ALICE, chat.id, turn.id):
        text += piece["text"]
        if len(text) == 3000:
            break
    await house.store.transact(lambda db: None)  # queued behind the save that was under way
    state, answer, raw = stored(house, turn.id)
    assert state == "streaming"
    assert 1024 <= len(answer) <= 3000
    assert raw == len(event("x" * 10)) * (len(answer) // 10)
    assert commits <= 6
    house.gateway.go.set()
    await whole(chats, turn)
    await house.store.transact(lambda db: db.set_trace_callback(None))


async def test_the_next_daemon_goes_on_with_a_turn_by_id_and_offset(house) -> None:
    house.gateway.script = [event("one "), b'data: {"choi', None, event("two ")[12:], figures(5, 2), DONE]
    before = house.chats()
    await before.start()
    chat = await new(before)
    turn = await before.turns.ask(ALICE, "r", chat.id, "q")
    assert await first_piece(before, turn) == "one "
    reader = asyncio.create_task(whole(before, turn))
    await before.close()
    assert await reader == ("one ", None)  # no end is claimed
    assert stored(house, turn.id)[0] == "streaming"
    after = house.chats()
    await after.start()
    house.gateway.go.set()
    text, last = await whole(after, turn, 4)
    assert (text, last.answer, last.state) == ("two ", "one two ", "done")
    assert len(house.gateway.asked) == 1
    await after.close()


async def test_a_daemon_that_was_killed_repeats_nothing_and_loses_nothing(house) -> None:
    """kill -9: what was not stored yet comes again from the gateway."""
    house.gateway.script = [event("one "), event("two "), None, event("three"), DONE]
    before = house.chats()
    turn = await before.turns.ask(ALICE, "r", (await new(before)).id, "q")
    assert await first_piece(before, turn) == "one two "
    assert stored(house, turn.id) == ("waiting", "", 0)  # under a second and a KiB: not stored
    after = house.chats()
    await after.start()
    house.gateway.go.set()
    _, last = await whole(after, turn)
    assert (last.answer, last.state) == ("one two three", "done")
    await after.close()
    await before.close()


async def test_a_turn_that_the_gateway_lost_too_is_cut_and_keeps_its_part(house) -> None:
    house.gateway.script = [event("part "), None]
    before = house.chats()
    turn = await before.turns.ask(ALICE, "r", (await new(before)).id, "q")
    await first_piece(before, turn)
    await before.close()
    house.gateway.turns.clear()
    after = house.chats()
    await after.start()
    _, last = await whole(after, turn)
    assert (last.state, last.answer) == ("cut", "part ")
    assert last.reason
    await after.close()


async def test_a_killed_replica_leaves_the_part_that_came_and_go_on_goes_on(house, chats) -> None:
    dead = b'data: {"error":{"message":"replica chat/0 died while it answered"}}\n\n'
    house.gateway.script = [event("The farm has "), dead]
    chat = await new(chats)
    turn = await chats.turns.ask(ALICE, "r", chat.id, "Which animals?")
    _, last = await whole(chats, turn)
    assert (last.state, last.answer) == ("cut", "The farm has ")
    assert "chat/0 died" in last.reason
    house.gateway.script = [event("cows."), figures(9, 1), DONE]
    again = await chats.turns.ask(ALICE, "r", chat.id, "", cont=True)
    assert (again.n, again.answer) == (1, "The farm has ")
    text, last = await whole(chats, again, len(again.answer))
    assert (text, last.answer, last.state, last.reason) == ("cows.", "The farm has cows.", "done", "")
    assert [m["content"] for m in house.gateway.asked[1]["messages"]] == ["Which animals?", "The farm has "]
    assert len((await chats.get(ALICE, chat.id)).messages) == 1
    with pytest.raises(Conflict, match="nothing to go on"):
        await chats.turns.ask(ALICE, "r", chat.id, "", cont=True)


async def test_a_killed_gateway_cuts_the_turn_with_a_reason(house, chats) -> None:
    house.gateway.script = [event("so far"), None]
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    await first_piece(chats, turn)
    await house.gateway.break_off()
    _, last = await whole(chats, turn)
    assert (last.state, last.answer) == ("cut", "so far")
    assert "closed" in last.reason


async def test_a_refusal_of_the_gateway_is_the_turns_reason(house, chats) -> None:
    house.gateway.status = 503
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    _, last = await whole(chats, turn)
    assert (last.state, last.reason, last.answer) == ("failed", "no room for it", "")


async def test_a_turn_is_neither_followed_nor_stopped_through_another_chat(house, chats) -> None:
    house.gateway.script = [event("half"), None]
    own = await new(chats)
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    await first_piece(chats, turn)
    with pytest.raises(Unseen, match="has no turn"):
        await anext(chats.turns.stream(ALICE, own.id, turn.id))
    with pytest.raises(Unseen, match="has no turn"):
        await chats.turns.stop(ALICE, own.id, turn.id)
    assert (await chats.get(ALICE, turn.chat)).messages[0].state == "streaming"
    await chats.turns.stop(ALICE, turn.chat, turn.id)
    await whole(chats, turn)


async def test_stop_keeps_what_came(house, chats) -> None:
    house.gateway.script = [event("half"), None]
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    await first_piece(chats, turn)
    await chats.turns.stop(ALICE, turn.chat, turn.id)
    _, last = await whole(chats, turn)
    assert (last.state, last.answer, last.reason) == ("stopped", "half", "")
    assert turn.id in house.gateway.ended


async def test_one_answer_at_a_time(house, chats) -> None:
    house.gateway.script = [event("a"), None, DONE]
    chat = await new(chats)
    done = await asyncio.gather(
        *(chats.turns.ask(ALICE, "r", chat.id, f"q{n}") for n in range(3)), return_exceptions=True
    )  # fmt: skip
    assert sorted(type(one).__name__ for one in done) == ["Conflict", "Conflict", "Turn"]
    house.gateway.go.set()
    (turn,) = [one for one in done if isinstance(one, Turn)]
    await whole(chats, turn)
    assert len((await chats.get(ALICE, chat.id)).messages) == 1


async def test_regenerate_and_edit_drop_what_followed(house, chats) -> None:
    chat = await new(chats)
    for question in ("one", "two", "three"):
        await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, question))
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "", replace_turn=3))
    assert house.gateway.asked[-1]["messages"][-1]["content"] == "three"
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "two, better", replace_turn=2))
    detail = await chats.get(ALICE, chat.id)
    assert [(t.n, t.question) for t in detail.messages] == [(1, "one"), (2, "two, better")]
    with pytest.raises(NotFound):
        await chats.turns.ask(ALICE, "r", chat.id, "x", replace_turn=9)


async def test_a_full_context_is_a_choice_and_never_silence(house, chats) -> None:
    """512 cells: after three turns the engine says that 470 are used."""
    chat = await new(chats, max_tokens=100)
    for n in range(3):
        house.gateway.script = [event("y" * 60), figures(130 * (n + 1), 26), DONE]
        await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, f"question {n} " + "z" * 200))
    asked = len(house.gateway.asked)
    with pytest.raises(Conflict) as refused:
        await chats.turns.ask(ALICE, "r", chat.id, "one more")
    assert refused.value.details["context_full"] is True
    assert "512" in refused.value.why
    assert len(house.gateway.asked) == asked
    house.gateway.script = [event("ok"), figures(60, 1), DONE]
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "one more", forget_oldest=True))
    sent = [m["content"] for m in house.gateway.asked[-1]["messages"] if m["role"] == "user"]
    assert sent[-1] == "one more"
    assert "question 0 " + "z" * 200 not in sent
    # what was forgotten stays forgotten, although the engine's count says now that there is room
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "and more"))
    assert [m["content"] for m in house.gateway.asked[-1]["messages"] if m["role"] == "user"] == [*sent, "and more"]
    assert len((await chats.get(ALICE, chat.id)).messages) == 5


async def test_a_chat_may_be_told_to_forget_the_oldest_by_itself(house, chats) -> None:
    chat = await new(chats)
    await chats.update(ALICE, "r", chat.id, on_full="forget-oldest")
    house.gateway.script = [event("y"), figures(505, 5), DONE]
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "long"))
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "next"))
    assert [m["content"] for m in house.gateway.asked[-1]["messages"]] == ["next"]
    with pytest.raises(Invalid):
        await chats.update(ALICE, "r", chat.id, on_full="guess")


async def test_deleted_for_good_means_in_no_file(house, chats) -> None:
    secret = "zebra-crossing-7741"
    house.gateway.script = [event(f"you said {secret}"), DONE]
    chat = await chats.create(ALICE, "r", "chat", ChatOptions(system=f"know {secret}"), f"about {secret}")
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, f"what is {secret}?"))

    assert house.holding(secret) == []
    assert house.holding(chat.id)
    await chats.rm(ALICE, "r", chat.id)
    left = house.holding(chat.id)  # the audit trail names it, and for no longer than there are chats its key
    assert {path.name for path in left} <= {"corral.db"}
    with pytest.raises(NotFound):
        await chats.get(ALICE, chat.id)
    assert await chats.search(ALICE, secret) == []


async def test_a_chat_is_removed_while_it_answers(house, chats) -> None:
    house.gateway.script = [event("a"), None]
    turn = await chats.turns.ask(ALICE, "r", (await new(chats)).id, "q")
    await first_piece(chats, turn)
    await chats.rm(ALICE, "r", turn.chat)
    assert await chats.ls(ALICE) == []
    assert await house.store.read(lambda db: tables.one_turn(db, house.ring, turn.id)) is None
    assert turn.id in house.gateway.ended


async def test_neither_audit_trail_nor_events_hold_what_was_said(house, chats) -> None:
    chat = await chats.create(ALICE, "r", "chat", ChatOptions(system="PROMPT-X"), "TITLE-X")
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "QUESTION-X"))
    await chats.update(ALICE, "r", chat.id, title="TITLE-X2")
    records = await house.audit.ls()
    assert [r.verb for r in records] == ["chats.create", "chats.ask", "chats.update"]
    events = []
    async with asyncio.timeout(5):
        async for batch in house.bus.follow(f"{house.bus.last.split('.')[0]}.0"):
            events += batch
            break
    assert {e.type for e in events} == {"chat", "turn"}
    told = repr(records) + repr(events)
    for text in ("PROMPT-X", "TITLE-X", "QUESTION-X", "Hello"):
        assert text not in told


async def test_chats_are_ones_own(house, chats) -> None:
    chat = await new(chats)
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "mine"))
    for other in (ROOT, MALLORY):
        assert await chats.ls(other) == []
        assert await chats.search(other, "mine") == []
        with pytest.raises(NotFound):
            await chats.get(other, chat.id)
        with pytest.raises(NotFound):
            await chats.turns.ask(other, "r", chat.id, "yours?")
        with pytest.raises(NotFound):
            await chats.rm(other, "r", chat.id)
    with pytest.raises(NotFound):
        await chats.create(MALLORY, "r", "chat", ChatOptions())


async def test_search_finds_title_question_and_answer_and_takes_signs_as_they_are(house, chats) -> None:
    house.gateway.script = [event("100% wool"), DONE]
    chat = await chats.create(ALICE, "r", "chat", ChatOptions(), "Sheep")
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "what is in_it?"))
    for text, found in (("sheep", 1), ("100%", 1), ("in_it", 1), ("1%0", 0), ("inxit", 0), ("goat", 0)):
        assert len(await chats.search(ALICE, text)) == found, text
    with pytest.raises(Invalid):
        await chats.search(ALICE, "")


async def test_export_has_all_that_was_said(house, chats) -> None:
    chat = await new(chats, system="Be short.")
    await whole(chats, await chats.turns.ask(ALICE, "r", chat.id, "Hi?"))
    text = await chats.export(ALICE, chat.id, "md")
    for part in ("# Hi?", "> Be short.", "Hello"):
        assert part in text
    data = json.loads(await chats.export(ALICE, chat.id, "json"))
    assert data["messages"][0]["answer"] == "Hello"


@pytest.mark.parametrize("options", [{"temperature": -1}, {"top_p": 1.5}, {"max_tokens": 0}, {"seed": -1}])
async def test_options_out_of_range_are_refused(chats, options) -> None:
    with pytest.raises(Invalid):
        await new(chats, **options)


async def test_bad_questions_are_refused(chats) -> None:
    chat = await new(chats)
    for question in ("", "  \n", "x" * ((1 << 20) + 1)):
        with pytest.raises(Invalid):
            await chats.turns.ask(ALICE, "r", chat.id, question)
    with pytest.raises(NotFound):
        await chats.create(ALICE, "r", "no-such", ChatOptions())


async def test_a_store_that_cannot_be_written_ends_no_answer(house, chats, monkeypatch) -> None:
    from core.errors import StoreError

    house.gateway.script = [event("a" * 2000), None, event("b"), DONE]
    chat = await new(chats)
    turn = await chats.turns.ask(ALICE, "r", chat.id, "q")
    real = house.store.transact

    async def full(fn):
        raise StoreError("the disk is full")

    monkeypatch.setattr(house.store, "transact", full)
    await first_piece(chats, turn)
    monkeypatch.setattr(house.store, "transact", real)
    house.gateway.go.set()
    _, last = await whole(chats, turn)
    assert (last.state, len(last.answer)) == ("done", 2001)


async def test_a_chat_whose_first_question_would_be_refused_is_not_made(chats) -> None:
    slot = (await new(chats)).ctx_per_slot
    before = await chats.ls(ALICE)
    for question in (" \n", "wool " * slot * 2):
        with pytest.raises(Invalid):
            await chats.create(ALICE, "r", "chat", ChatOptions(), question=question)
    assert await chats.ls(ALICE) == before
    assert (await chats.create(ALICE, "r", "chat", ChatOptions(), question="why")).turns == 0


@pytest.mark.parametrize(("state", "todo"), [("stopped", "corral start chat"), ("failed", "corral explain chat")])
async def test_a_first_question_to_a_deployment_that_is_down_leaves_no_chat(house, chats, state, todo) -> None:
    house.state = state
    with pytest.raises(Conflict) as told:
        await chats.create(ALICE, "r", "chat", ChatOptions(), question="why")
    assert (told.value.what, told.value.why, told.value.todo) == (f"chat is {state}", "why", todo)
    assert (await chats.ls(ALICE), house.gateway.asked) == ([], [])
    kept = await chats.create(ALICE, "r", "chat", ChatOptions())  # the console's: a system prompt may be written first
    house.state = "pending"
    assert (await chats.create(ALICE, "r", "chat", ChatOptions(), question="why")).id != kept.id
