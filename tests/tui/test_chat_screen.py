"""The Chat screen on the double: each of its actions, and how an answer grows."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.widgets import Input, Markdown

from tui.screens.confirm import Confirm
from tui.screens.whole import Whole
from tui.widgets.answer import Answer, blocks
from tui.widgets.keyline import KeyLine
from tui.widgets.table import Table

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


async def opened(it):
    await it.until("First")
    await it.press("enter")
    await it.until(lambda: it.app.focused is not None and it.app.focused.id == "ask")


async def asked(it, question="why"):
    await opened(it)
    await it.type(question)
    await it.press("enter")


def free(it):
    return {text.split()[0] for text, may in it.app.screen.query_one(KeyLine).keys if may}


@SIZES
async def test_a_question_is_answered_with_its_figures(console, fake, size):
    async with console("5", size=size) as it:
        await asked(it)
        await it.until("44.5 tok/s")
        assert "> why" in it.text and "Hello world" in it.text and "first token 35 ms" in it.text
        assert it.app.focused.value == ""


async def test_an_answer_is_stopped_and_gone_on_with(console, fake):
    fake.gate.clear()
    async with console("5") as it:
        await asked(it)
        await it.until("Hello")
        await it.press("escape")
        await it.until(lambda: "s" in free(it))
        assert not free(it) & {"r", "e", "o"}
        await it.press("r")
        await it.until("An answer is being made: s stops it")
        await it.press("s")
        await it.until("o goes on")
        assert [c[0] for c in fake.calls][-1] == "stop_turn" and "world" not in it.text
        assert "s" not in free(it) and free(it) >= {"r", "e", "o"}
        fake.stopped = False
        await it.press("o")
        await it.until("Hello world")
        assert fake.calls[-1] == ("ask", "", {"cont": True})
        await it.until(lambda: "o" not in free(it))


async def test_an_answer_is_made_again_in_the_place_of_the_last(console, fake):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        fake.pieces = ["Another"]
        await it.press("escape", "r")
        await it.until("Another")
        assert fake.calls[-1] == ("ask", "why", {"replace_turn": 1})
        assert "Hello" not in it.text and it.text.count("> why") == 1


async def test_a_question_is_edited_and_sent_again(console, fake):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        await it.press("escape", "e")
        await it.until(lambda: isinstance(it.app.focused, Input) and it.app.focused.value == "why")
        await it.type("not")
        await it.press("enter")
        await it.until("> whynot")
        assert fake.calls[-1] == ("ask", "whynot", {"replace_turn": 1})


async def test_editing_that_is_left_asks_a_new_question_next(console, fake):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        await it.press("escape", "e", "escape", "i", "enter")
        await it.until(lambda: len(fake.turns) == 2)
        assert fake.calls[-1] == ("ask", "why", {"replace_turn": None})


async def test_a_full_context_is_a_choice(console, fake):
    fake.context_full = True
    async with console("5") as it:
        await asked(it)
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "2100 of 2048 tokens" in it.text
        await it.press("n")
        await it.until("Not sent: the context is full")
        assert it.app.screen.query_one("#ask", Input).value == "why"
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until("44.5 tok/s")
        assert fake.calls[-1] == ("ask", "why", {"replace_turn": None, "forget_oldest": True})


async def test_what_happens_when_full_is_changed_and_shown(console, fake):
    async with console("5") as it:
        await opened(it)
        assert "when full asks" in it.text
        await it.press("escape", "f")
        await it.until("when full forgets the oldest")
        assert ("update_chat", "c1", {"on_full": "forget-oldest"}) in fake.calls


async def test_parameters_are_checked_and_sent(console, fake):
    async with console("5") as it:
        await opened(it)
        await it.press("escape", "p")
        await it.until(lambda: it.app.screen.query("#field-temperature"))
        it.app.screen.query_one("#field-temperature", Input).value = "warm"
        await it.press("ctrl+s")
        await it.until("temperature must be a number")
        it.app.screen.query_one("#field-temperature", Input).value = "0.5"
        await it.press("ctrl+s")
        await it.until(lambda: fake.calls and fake.calls[-1][0] == "update_chat")
        assert fake.calls[-1][2]["options"].temperature == 0.5


async def test_a_chat_gets_another_title(console, fake):
    async with console("5") as it:
        await it.until("First")
        await it.press("t")
        await it.until(lambda: it.app.screen.query("#field-title"))
        await it.type("!")
        await it.press("enter")
        await it.until("First!")
        assert ("update_chat", "c1", {"title": "First!"}) in fake.calls


async def test_a_chat_is_written_to_a_new_file_only(console, fake, tmp_path):
    async with console("5") as it:
        await it.until("First")
        for name, text in (("a.md", "# First\n"), ("a.json", "# First\n")):
            await it.press("w")
            await it.until(lambda: it.app.screen.query("#field-path"))
            it.app.screen.query_one("#field-path", Input).value = str(tmp_path / name)
            await it.press("enter")
            await it.until("Written:")
            assert (tmp_path / name).read_text() == text and (tmp_path / name).stat().st_mode & 0o777 == 0o600
        assert [c[2] for c in fake.calls if c[0] == "export_chat"] == ["md", "json"]
        await it.press("w")
        await it.until(lambda: it.app.screen.query("#field-path"))
        it.app.screen.query_one("#field-path", Input).value = str(tmp_path / "a.md")
        await it.press("enter")
        await it.until("a.md exists")


async def test_questions_and_answers_are_searched(console, fake):
    async with console("5") as it:
        await it.until("First")
        await it.press("slash")
        await it.type("wool")
        await it.press("enter")
        await it.until("1 chats hold 'wool'")
        assert ("search_chats", "wool") in fake.calls and "First" in it.text
        await it.press("slash")
        await it.type("s")
        await it.press("enter")
        await it.until("0 chats hold 'wools'")
        await it.press("escape")
        await it.until(lambda: len(it.app.screen.query_one(Table).rows) == 1)


async def test_a_chat_is_deleted_by_typing_the_word(console, fake):
    async with console("5") as it:
        await opened(it)
        await it.press("escape", "x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.type("delete")
        await it.press("enter")
        await it.until(lambda: ("remove_chat", "c1") in fake.calls)
        await it.until(lambda: it.app.focused.id == "chats")


async def test_a_first_question_begins_a_chat_with_what_is_ready(console, fake):
    async with console("5") as it:
        await it.until("First")
        await it.press("i")
        await it.type("hi")
        await it.press("enter")
        await it.until("44.5 tok/s")
        assert [c[:2] for c in fake.calls if c[0] in ("create_chat", "ask")] == [("create_chat", "chat"), ("ask", "hi")]


async def test_without_a_chat_the_keys_of_an_answer_say_what_is_missing(console, fake, doubles):
    fake.deployed = [doubles.deployment("chat", ready=0, state="failed")]
    async with console("5") as it:
        await it.until("First")
        for key, words in (("r", "Open a chat first"), ("s", "Open a chat first"), ("n", "No deployment is ready")):
            await it.press(key)
            await it.until(words)


async def test_under_100_columns_list_and_conversation_take_turns(console):
    async with console("5", size=(80, 24)) as it:
        await it.until("First")
        assert not it.app.screen.query_one("#conversation").display
        await opened(it)
        assert not it.app.screen.query_one("#chats").display
        await it.pilot.resize_terminal(120, 36)
        await it.until(lambda: it.app.screen.query_one("#chats").display)
        await it.pilot.resize_terminal(80, 24)
        await it.until(lambda: not it.app.screen.query_one("#chats").display)
        await it.press("escape", "escape")
        await it.until(lambda: it.app.screen.query_one("#chats").display and it.app.focused.id == "chats")


async def test_complete_blocks_become_markdown_while_the_rest_still_grows(console, fake):
    fake.pieces = ["# Head\n\nfirst\n\n", "sec", "ond"]
    fake.gate.clear()
    async with console("5") as it:
        await asked(it)
        await it.until("Head")
        answer = it.app.screen.query_one(Answer)
        await it.until(lambda: len(answer.query(Markdown)) == 2)
        assert "# Head" not in it.text
        kept = list(answer.query(Markdown))
        fake.gate.set()
        await it.until("44.5 tok/s")
        assert list(answer.query(Markdown))[:2] == kept and len(answer.query(Markdown)) == 3
        assert "second" in it.text


async def test_an_answer_goes_on_where_it_was_after_a_lost_connection(console, fake, doubles):
    whole = fake.stream_turn
    tries = []

    async def broken(chat, turn, offset):
        tries.append(offset)
        if len(tries) == 1:
            yield {"offset": 0, "text": "Hello"}
            raise doubles.NoDaemon("the daemon went away")
        async for piece in whole(chat, turn, offset):
            yield piece

    fake.stream_turn = broken
    async with console("5") as it:
        await asked(it)
        await it.until("connection lost")
        await it.until("44.5 tok/s")
        assert tries == [0, 5] and "Hello world" in it.text


async def test_the_whole_answer_is_one_key_away(console, fake):
    fake.pieces = ["word " * 400 + "THE END"]
    async with console("5", size=(80, 24)) as it:
        await asked(it)
        await it.until("44.5 tok/s")
        await it.press("escape", "exclamation_mark")
        await it.until(lambda: isinstance(it.app.screen, Whole))
        assert it.app.screen.text.endswith("THE END")


def test_blocks_end_at_blank_lines_outside_fences():
    assert blocks("a\nb\n\nc") == (["a\nb"], "c")
    assert blocks("```\na\n\nb\n```\n\nc") == (["```\na\n\nb\n```"], "c")
    assert blocks("~~~~\n~~~\n\nx") == ([], "~~~~\n~~~\n\nx")
    assert blocks("") == ([], "")


@given(st.lists(st.sampled_from(["a", "\n", "```\n", "~~~\n", " ", "- x\n"])).map("".join), st.integers(0, 40))
def test_a_block_that_is_complete_never_changes(text, cut):
    early, _ = blocks(text[:cut])
    late, rest = blocks(text)
    assert late[: len(early)] == early
    assert "".join("".join([*late, rest]).split()) == "".join(text.split())
    assert json.dumps(late)
