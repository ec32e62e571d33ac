"""The palette: everything from anywhere, found by a few letters."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tui.deeds import Deed, sought
from tui.screens.confirm import Confirm
from tui.screens.deploy import DeployForm, ScaleForm
from tui.screens.explain import Explain
from tui.screens.log import Log
from tui.screens.palette import Palette
from tui.widgets.question import Question
from tui.widgets.table import Table


async def choose(it, typed):
    await it.press("ctrl+p")
    await it.until(lambda: isinstance(it.app.screen, Palette))
    await it.type(typed)
    await it.press("enter")


@pytest.mark.parametrize("screen", ["1", "9"])
async def test_each_deployment_is_at_hand_from_everywhere(console, fake, screen):
    async with console(screen) as it:
        for typed, opened, name in (("embed lgs", Log, "embed"), ("embed expl", Explain, "embed")):
            await choose(it, typed)
            await it.until(lambda opened=opened: isinstance(it.app.screen, opened))
            assert it.app.screen.deployment == name and it.app.current_mode == "deployments"
        await choose(it, "embed scale")
        await it.until(lambda: isinstance(it.app.screen, ScaleForm))
        assert it.app.screen.deployment.spec.name == "embed"
        await choose(it, "chat: stop")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert "Stop chat?" in it.text
        await it.press("y")
        await it.until(lambda: ("stop_deployment", "chat") in fake.calls)
        await choose(it, "embed details")
        await it.until(lambda: it.app.screen.query("#deployments") and it.app.screen.table().key == "embed")


async def test_models_and_chats_are_at_hand(console, fake):
    async with console("9", size=(80, 24)) as it:
        await choose(it, "smollm deploy")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        assert it.app.screen.value("model") == "smollm2"
        await choose(it, "gemma show")
        await it.until(lambda: it.app.current_mode == "models" and it.app.screen.table().key == "gemma")
        await it.press("ctrl+p")
        await it.until(lambda: isinstance(it.app.screen, Palette))
        await it.type("first")
        await it.until("chat First (chat)")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.focused, Question) and it.app.screen.chat.id == "c1")
        await choose(it, "chat with it")
        await it.until("a new chat with chat")
        await choose(it, "verify chain")
        await it.until("WRONG at 2")


async def test_what_does_nothing_now_says_so_and_leaves_the_palette_open(console, fake):
    async with console("1") as it:
        await choose(it, "embed chat")
        await it.until("Not now: embed is failed")
        assert isinstance(it.app.screen, Palette)
        await it.press("escape")
        fake.drop()
        await it.until("reconnecting")
        await choose(it, "chat: scale")
        await it.until("Not now: The daemon does not answer now")
        await it.type("zzz")
        await it.press("enter")
        await it.until("Nothing is chosen")


async def test_the_foot_speaks_of_the_row_under_the_cursor_also_after_a_filter(console, fake):
    async with console("1") as it:
        await it.press("ctrl+p")
        await it.until(lambda: isinstance(it.app.screen, Palette))
        await it.type("embed chat")
        await it.until("Not now: embed is failed")
        for _ in "chat":
            await it.press("backspace")
        await it.type("details")
        await it.until("enter does it")
        assert "Not now" not in it.text
        await it.type(" zzz")
        await it.until("Nothing here has these letters")
        assert "Not now" not in it.text


async def test_a_question_in_front_is_answered_first(console, fake):
    async with console("2") as it:
        await it.until("replica")
        await it.press("s", "ctrl+p")
        await it.until("Answer this first: esc leaves it")
        assert isinstance(it.app.screen, Confirm)


async def test_a_row_that_a_filter_hides_is_found(console, fake):
    async with console("2") as it:
        await it.until("replica")
        await it.press("slash")
        await it.type("embed")
        await it.press("enter")
        await it.until(lambda: len(it.app.screen.query_one("#deployments", Table).rows) == 1)
        await choose(it, "chat: details")
        await it.until(lambda: it.app.screen.query("#deployments") and it.app.screen.table().key == "chat")


async def test_what_is_gone_meanwhile_is_said(console, fake):
    async with console("1") as it:
        await it.press("ctrl+p")
        await it.until(lambda: isinstance(it.app.screen, Palette))
        await it.type("embed details")
        fake.push("deployment.gone", "deployment:embed")
        await it.until(lambda: "embed" not in it.app.state.deployments)
        await it.press("enter")
        await it.until("embed is not there any more")


def names(*words):
    return [Deed(each, "", "a") for each in words]


def test_the_closest_comes_first():
    found = sought(names("restart", "l-o-g-s", "lo-gs", "blogs", "go to Logs", "chat: logs"), "logs")
    assert [deed.words for deed in found] == ["go to Logs", "chat: logs", "blogs", "lo-gs", "l-o-g-s"]
    assert [d.words for d in sought(names("stop", "embed: restart"), "emb rst")] == ["embed: restart"]
    assert sought(names("stop"), "stopp") == []


@given(st.lists(st.text("abc: ", min_size=1), max_size=6), st.text("abc ", max_size=6))
def test_only_what_has_the_letters_is_found_and_nothing_twice(texts, typed):
    found = [deed.words for deed in sought(names(*dict.fromkeys(texts)), typed)]
    assert len(found) == len(set(found)) and set(found) <= set(texts)
    for words in found:
        for word in typed.split():
            letters = iter(words)
            assert all(each in letters for each in word)
    assert {text for text in texts if typed.strip() and typed.strip() in text} <= set(found)


@pytest.mark.parametrize(("typed", "asks", "models"), [
    ("shut models run", "Shut the daemon down? Models run on. F5 starts it again", False),
    ("shut stop all", "and stop all models (replicas: 1)? Answers in flight end first. F5 starts it again", True),
])  # fmt: skip
async def test_the_daemon_is_shut_down_after_a_question(console, fake, typed, asks, models):
    async with console("2", size=(80, 24)) as it:
        await it.until("replica")
        await choose(it, typed)
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert asks in it.app.screen.question and not fake.calls
        await it.press("y")
        await it.until(lambda: ("shutdown", models) in fake.calls)


async def test_the_settings_are_read_again(console, fake):
    async with console("1") as it:
        await choose(it, "reload corral.toml")
        await it.until("! /h/corral.toml is in force")
        assert ("reload",) in fake.calls


async def test_a_daemon_that_was_shut_down_is_started_from_the_palette(console, fake):
    async with console("1") as it:
        fake.ended = True
        fake.drop()
        await it.until("F5 starts it again")
        await choose(it, "shut models run")
        await it.until("Not now: The daemon was shut down")
        await it.press("escape")
        fake.up = True
        await choose(it, "start the daemon")
        await it.until("live")
