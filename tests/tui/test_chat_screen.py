"""The Chat screen on the double: each of its actions, and how an answer grows."""

import asyncio
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual import highlight
from textual.events import Paste
from textual.widgets import Input, Markdown

from core.nouns import ChatOptions, Mark
from tui.screens.confirm import Choice, Confirm
from tui.screens.whole import Whole
from tui.widgets.answer import Answer, blocks
from tui.widgets.keyline import KeyLine
from tui.widgets.question import Question
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
        await it.until(lambda: isinstance(it.app.focused, Question) and it.app.focused.value == "why")
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
        await it.until(lambda: isinstance(it.app.screen, Choice))
        assert "2100 of 2048 tokens" in it.text
        await it.press("escape")
        await it.until("Not sent: the context is full")
        assert it.app.focused.id == "ask" and it.app.focused.value == "why"
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Choice))
        await it.press("f")
        await it.until("44.5 tok/s")
        assert fake.calls[-1] == ("ask", "why", {"replace_turn": None, "forget_oldest": True})


async def test_a_question_that_does_not_fit_is_sent_in_a_new_chat_or_forgets_from_then_on(console, fake):
    fake.context_full = True
    async with console("5") as it:
        await asked(it)
        await it.until(lambda: isinstance(it.app.screen, Choice))
        fake.context_full = False
        await it.press("a")
        await it.until("44.5 tok/s")
        assert ("update_chat", "c1", {"on_full": "forget-oldest"}) in fake.calls
        fake.context_full = True
        await it.type("more")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Choice))
        fake.context_full = False
        await it.press("n")
        await it.until(lambda: [c[0] for c in fake.calls[-2:]] == ["create_chat", "ask"])
        assert fake.calls[-1][1] == "more"


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


async def test_code_of_no_named_language_is_drawn_without_a_guess_at_it(console, fake, monkeypatch):
    """Textual's guess loads every lexer that there is, while the console stands still."""
    guessed = []
    monkeypatch.setattr(highlight, "guess_language", lambda code, path: guessed.append(code) or "text")
    fake.pieces = ["```\nx = 1\n```\n\n", "    indented = 2\n\n", "```python\ny = 3\n```"]
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        assert all(words in it.text for words in ("x = 1", "indented = 2", "y = 3")) and guessed == []


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


# ---------------------------------------------------------------------------------------- the field


def field(it):
    return it.app.screen.query_one("#ask", Question)


async def test_a_question_has_several_lines_and_enter_sends_them(console, fake):
    async with console("5", size=(80, 24)) as it:
        await opened(it)
        await it.press("a", "ctrl+j", "b", "alt+enter", "c")
        assert field(it).value == "a\nb\nc" and field(it).size.height == 3
        for _ in range(6):
            await it.press("ctrl+j")
        assert field(it).size.height == 5
        field(it).value = "a\nb"
        await it.press("enter")
        await it.until("44.5 tok/s")
        assert [c[:2] for c in fake.calls if c[0] == "ask"] == [("ask", "a\nb")] and field(it).value == ""
        assert field(it).size.height == 1


async def test_pasted_lines_stay_lines_and_send_nothing(console, fake):
    async with console("5") as it:
        await opened(it)
        it.app.focused.post_message(Paste("one\r\ntwo\rthree\x1b]52;c;aGk=\x07\u202e\n"))
        await it.until(lambda: field(it).value == "one\ntwo\nthree\n")
        assert not [c for c in fake.calls if c[0] == "ask"]


async def test_up_and_down_reach_what_was_asked_and_come_back_to_what_was_written(console, fake):
    async with console("5") as it:
        await asked(it, "first")
        await it.until("44.5 tok/s")
        await it.type("two")
        await it.press("enter")
        await it.until(lambda: len(fake.turns) == 2 and fake.turns[-1].state == "done")
        await it.type("draft")
        await it.press("ctrl+j", "x", "up")
        assert field(it).value == "draft\nx"  # up within the text moves in it
        seen = []
        for key in ("up", "up", "up", "down", "down", "down"):
            await it.press(key)
            seen.append(field(it).value)
        assert seen == ["two", "first", "first", "two", "draft\nx", "draft\nx"]


async def test_a_refused_question_keeps_field_focus_and_text(console, fake, doubles):
    async def refuse(*args, **how):
        raise doubles.NoRoom("Not asked", "the gateway is busy", "try again")

    fake.ask = refuse
    for size in ((120, 36), (80, 24)):
        async with console("5", size=size) as it:
            await it.until("First")
            await it.press("i")
            await it.type("hi")
            await it.press("enter")
            await it.until("the gateway is busy")
            await it.pilot.pause(0.3)
            assert it.app.focused is field(it) and field(it).value == "hi"


# ---------------------------------------------------------------------------------------- a new chat


async def test_n_begins_a_chat_at_once_and_the_daemon_hears_of_it_with_the_first_question(console, fake):
    async with console("5") as it:
        await opened(it)
        await it.press("escape", "n")
        await it.until("a new chat with chat")
        assert it.app.focused is field(it) and not [c for c in fake.calls if c[0] == "create_chat"]
        await it.type("hi")
        await it.press("ctrl+o")
        await it.until(lambda: it.app.screen.query("#field-temperature"))
        it.app.screen.query_one("#field-temperature", Input).value = "0.5"
        await it.press("ctrl+s")
        await it.until("temperature 0.5")
        assert field(it).value == "hi"
        await it.press("enter")
        await it.until("44.5 tok/s")
        (made,) = [c for c in fake.calls if c[0] == "create_chat"]
        assert made[1] == "chat" and made[2].temperature == 0.5
        assert not [c for c in fake.calls if c[0] == "update_chat"]


async def test_a_new_chat_that_asked_nothing_says_so_to_the_keys_of_a_chat(console):
    async with console("5") as it:
        await opened(it)
        await it.press("ctrl+n")
        await it.until("a new chat with chat")
        await it.press("escape", "f")
        await it.until("This chat begins with its first question")
        await it.press("r")
        await it.until("There is no answer yet")


async def test_with_several_deployments_and_no_chat_n_asks_which(console, fake, doubles):
    fake.deployed = [doubles.deployment("alpha"), doubles.deployment("beta")]
    fake.chats = lambda: _none()
    async with console("5") as it:
        await it.until("No chat yet")
        await it.press("n")
        await it.until("Ready: alpha, beta")
        box = it.app.screen.query_one("#field-deployment", Input)
        box.value = "gamma"
        await it.press("ctrl+s")
        await it.until("gamma is not ready")
        box.value = "beta"
        await it.press("ctrl+s")
        await it.until("a new chat with beta")


async def _none():
    return []


# ---------------------------------------------------------------------------------------- a full context


async def test_a_context_that_cut_the_answer_shows_the_choice_at_once(console, fake):
    fake.context_tokens, fake.finish = 4095, "length"
    async with console("5", size=(80, 24)) as it:
        await asked(it)
        await it.until("The context is full (4095 of 4096 tokens)")
        assert it.app.focused is field(it)
        await it.press("ctrl+f")
        await it.until("forgets the oldest")
        await it.until(lambda: "The context is full" not in it.text)
        assert ("update_chat", "c1", {"on_full": "forget-oldest"}) in fake.calls


async def test_forgetting_goes_on_with_the_answer_that_was_cut(console, fake):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        fake.context_tokens, fake.finish = 4095, "length"
        await it.type("more")
        await it.press("enter")
        await it.until("turns and goes on")
        fake.finish = "stop"
        await it.press("ctrl+f")
        await it.until(lambda: fake.calls[-1] == ("ask", "", {"cont": True}))


async def test_a_question_that_will_not_fit_is_said_while_it_is_written(console, fake):
    fake.context_tokens = 3800
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        assert "nearly full" not in it.text
        it.app.focused.post_message(Paste("wool " * 100))
        await it.until("nearly full (3800 of 4096 tokens)")
        field(it).value = ""
        await it.until(lambda: "nearly full" not in it.text)


async def test_help_tells_the_keys_of_the_field(console):
    async with console("5") as it:
        await it.until("First")
        await it.press("question_mark")
        await it.until("ctrl+j, alt+enter")
        assert it.text.count("question field") == 6


async def test_the_end_stays_in_view_through_resizes_while_an_answer_grows(console, fake):
    fake.pieces = [f"line {n}\n\n" for n in range(400)]
    steps = asyncio.Semaphore(0)
    fake.gate.wait = steps.acquire
    async with console("5", size=(80, 24)) as it:
        await asked(it)
        talk = it.app.screen.query_one("#talk")

        def grows():
            """True once the answer has become longer than it was; each look lets a piece come."""
            before = talk.virtual_size.height

            def look():
                steps.release()
                return talk.virtual_size.height > before

            return look

        for size in ((80, 24), (60, 15), (20, 5), (200, 50), (80, 24)):
            await it.pilot.resize_terminal(*size)
            for _ in range(6):
                await it.until(grows())
            await it.until(lambda: talk.max_scroll_y - talk.scroll_y <= 1)
        await it.press("escape", "k", "k", "k")
        await it.until(lambda: talk.max_scroll_y - talk.scroll_y >= 3)
        at = talk.scroll_y
        for _ in range(3):
            await it.until(grows())
        assert talk.scroll_y == at, "who has scrolled up to read is left there"
        fake.stopped = True
        steps.release()


async def test_the_list_marks_the_chat_that_is_open(console, fake):
    async with console("5", size=(120, 36)) as it:
        await opened(it)
        table = it.app.screen.query_one("#chats", Table)
        assert table.key == "c1"
        await it.press("escape", "escape", "n")
        await it.until("a new chat with chat")
        await it.until(">new chat")
        assert [row.key for row in table.rows] == ["new", "c1"]
        await it.press("escape", "escape", "x")
        await it.until("This chat begins with its first question")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.focused, Question))
        await it.type("why")
        await it.press("enter")
        await it.until("44.5 tok/s")
        fake.push("chat", "chat:c1", None)
        await it.until(lambda: [row.key for row in table.rows] == ["c1"])
        assert table.key == "c1" and ">new chat" not in it.text


# ---------------------------------------------------------------------------------------- what is kept of it


@SIZES
async def test_v_begins_a_chat_that_is_kept_nowhere_and_says_so(console, fake, size):
    async with console("5", size=size) as it:
        await it.until("First")
        await it.press("v")
        await it.until("a new private chat, kept nowhere")
        await it.type("hush")
        await it.press("enter")
        await it.until("44.5 tok/s")
        assert [c[1:] for c in fake.calls if c[0] == "create_chat"] == [("chat", ChatOptions(), "private")]
        await it.until("-- private, kept nowhere")


@pytest.mark.parametrize(
    ("kept", "words", "mark"),
    [
        ({"held": True}, "-- under legal hold", "held: First"),
        ({"goes_at": time.time() + 3.5 * 86400}, "-- deleted in 3d", "First"),
    ],
)
async def test_what_is_kept_and_how_long_stands_with_the_open_chat(console, fake, kept, words, mark):
    fake.kept = kept
    async with console("5") as it:
        await opened(it)
        await it.until(words)
        assert mark in it.text


async def test_locked_chats_are_unlocked_with_a_passphrase_that_is_not_shown(console, fake):
    async with console("5") as it:
        await it.until("First")
        await it.press("u")
        await it.until("they wait")
        await it.type("correct horse")
        assert "correct" not in it.text
        await it.press("enter")
        await it.until(lambda: ("unlock", "correct horse") in fake.calls)
        await it.until(lambda: it.app.screen.ROOM == "chat")
        await it.press("u")
        await it.until("The chats are open")


async def test_what_another_one_said_is_shown_for_a_reason_only(console, fake):
    async with console("5") as it:
        await it.until("First")
        await it.press("h")
        await it.until("without a reason nothing is shown")
        await it.type("bob")
        await it.press("enter", "enter")
        await it.until("Say whose, and why")
        assert not [c for c in fake.calls if c[0] == "others"]
        await it.type("ticket 7")
        await it.press("enter")
        await it.until("bob, looked at because: ticket 7")
        assert ("others", "bob", "ticket 7") in fake.calls
        await it.press("escape")
        await it.until(lambda: it.app.screen.ROOM == "chat")


@pytest.mark.parametrize(
    ("held", "key", "words"),
    [
        (("deployments.use",), "t", "ann may not chats.own"),
        (("deployments.use",), "w", "ann may not chats.own"),
        (("deployments.use",), "x", "ann may not chats.own"),
        (("deployments.use",), "p", "ann may not chats.own"),
        (("chats.own",), "r", "ann may not deployments.use"),
        (("chats.own",), "e", "ann may not deployments.use"),
        (("chats.own",), "i", "ann may not deployments.use"),
    ],
)
async def test_each_key_is_dim_without_its_right_and_says_why(console, fake, doubles, held, key, words):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        await it.press("escape")
        assert key in free(it)
        fake.me = doubles.somebody(*((permission, "*") for permission in held))
        await it.press("f5")
        await it.until(lambda: key not in free(it))
        await it.press(key)
        await it.until(words)


async def test_a_question_is_not_sent_to_what_became_sensitive_and_it_is_said_what_can_be_done(console, fake, doubles):
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        mark = Mark(deployment="chat", labels=("zone=secure",), by="eve", at=0.0)
        fake.push("deployment", "deployment:chat", doubles.deployment("chat", mark=mark))
        await it.until(lambda: it.app.state.deployments["chat"].mark is not None)
        fake.calls.clear()
        await it.type("more")
        await it.press("enter")
        await it.until("chat is sensitive: no chat with it is kept. v begins a private one")
        await it.press("escape")
        await it.until(lambda: not {"r", "e", "i", "n"} & free(it) and "v" in free(it))
        assert not [call for call in fake.calls if call[0] == "ask"]


async def test_what_is_held_is_not_deleted_or_changed(console, fake):
    fake.kept = {"held": True}
    async with console("5") as it:
        await asked(it)
        await it.until("44.5 tok/s")
        await it.press("escape")
        await it.until(lambda: not {"r", "e", "t", "x"} & free(it) and "w" in free(it))
        await it.press("x")
        await it.until("under legal hold: nothing of it is deleted or changed")


@SIZES
async def test_an_answer_that_waits_says_its_place_and_for_how_long(console, fake, size):
    pieces = [
        {"offset": 0, "text": "", "waits": "queued", "place": 3, "wait_s": 12},
        {"offset": 0, "text": "", "waits": "queued", "place": 1, "wait_s": 4},
        {"offset": 0, "text": "", "waits": "prompt", "place": 0, "wait_s": 0},
    ]
    told, stream = asyncio.Queue(), fake.stream_turn

    async def waiting(chat, turn, offset):
        for _ in pieces:
            yield await told.get()
        await told.get()
        async for piece in stream(chat, turn, offset):
            yield piece

    fake.stream_turn = waiting
    async with console("5", size=size) as it:
        await asked(it)
        for piece, words in zip(
            pieces, ("place 3, about 12 s", "place 1, about 4 s", "reading the prompt"), strict=True
        ):
            told.put_nowait(piece)
            await it.until(words)
        told.put_nowait({})
        await it.until("44.5 tok/s")
        assert "reading the prompt" not in it.text
