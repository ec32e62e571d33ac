"""How long what was said is kept: retention, legal hold and forgetting as forms, on the double."""

import pytest

from core.nouns import Hold, RetentionRule
from tui.screens.confirm import Confirm
from tui.screens.keepforms import Forget, HoldForm, Keep
from tui.widgets.keyline import KeyLine

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])
RULE = RetentionRule(kind="user", name="ann", days=30, reason="policy", by="eve", at=0.0)
HOLD = Hold(id="h1", kind="user", name="ann", reason="a case", by="eve", at=0.0)


def done(fake, verb):
    return [call for call in fake.calls if call[0] == verb]


async def filled(it, key, form, *texts):
    """Open a form on the screen in front and fill its fields from the first on."""
    await it.press(key)
    await it.until(lambda: isinstance(it.app.screen, form) and it.app.screen.query("#consequence"))
    for n, text in enumerate(texts):
        if n:
            await it.press("enter")
        if text is not None:
            await it.press("ctrl+u")
            await it.type(text)


@SIZES
@pytest.mark.parametrize("screen", ["5", "8"])
async def test_a_rule_of_retention_is_shown_set_and_taken_back(console, fake, size, screen):
    fake.privacy.rules = [RULE]
    async with console(screen, size=size) as it:
        await filled(it, "c", Keep, "group:staff", "1", "gdpr")
        await it.until("group:staff: 1 day")
        assert "user:ann 30 days, by eve because policy" in it.text
        await it.press("ctrl+s")
        await it.until(lambda: done(fake, "retain") == [("retain", "group:staff", 1, "gdpr")])
        await it.until(lambda: not isinstance(it.app.screen, Keep))
        await filled(it, "c", Keep, "user:ann", "default")
        await it.until("user:ann: no rule")
        await it.press("ctrl+s")
        await it.until(lambda: done(fake, "drop_rule") == [("drop_rule", "user:ann", "")])


async def test_keeping_nothing_asks_once_as_the_command_does(console, fake):
    async with console("8") as it:
        await filled(it, "c", Keep, "user:ann", "none")
        await it.until("goes within the hour")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert not done(fake, "retain")
        await it.press("y")
        await it.until(lambda: done(fake, "retain") == [("retain", "user:ann", 0, "")])


@pytest.mark.parametrize(
    ("subject", "days", "words"),
    [("ann", "3", "Say whose"), ("user:ann", "soon", "Say how long"), ("user:ann", "0", "Say how long")],
)
async def test_what_is_no_rule_is_not_sent(console, fake, subject, days, words):
    async with console("8") as it:
        await filled(it, "c", Keep, subject, days)
        await it.press("ctrl+s")
        await it.until(f"! {words}")
        assert not done(fake, "retain")


@SIZES
async def test_a_hold_is_set_with_its_reason_and_lifted_after_a_question(console, fake, size):
    async with console("8", size=size) as it:
        await filled(it, "z", HoldForm, "user:ann")
        await it.until("Sets a legal hold on user:ann")
        await it.press("ctrl+s")
        await it.until("! A reason is needed")
        await it.press("enter")
        await it.type("a case")
        await it.press("enter")
        await it.until(lambda: done(fake, "hold") == [("hold", "user:ann", "a case")])
        fake.privacy.held = [HOLD]
        await it.until(lambda: not isinstance(it.app.screen, HoldForm))
        await filled(it, "z", HoldForm, "user:ann", "over")
        await it.until(lambda: "sending LIFTS that" in " ".join(it.text.split()))
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        assert not done(fake, "release")
        await it.press("y")
        await it.until(lambda: done(fake, "release") == [("release", "h1", "over")])


async def test_a_hold_that_somebody_else_has_set_meanwhile_is_not_lifted_unseen(console, fake):
    async with console("8") as it:
        await filled(it, "z", HoldForm, "user:ann", "a case")
        await it.until("Sets a legal hold on user:ann")
        fake.privacy.held = [HOLD]
        await it.press("ctrl+s")
        await it.until("changed meanwhile")
        assert not done(fake, "hold") and not done(fake, "release") and "LIFTS" in it.text


async def test_on_the_chat_screen_a_hold_is_of_the_chat_under_the_cursor(console, fake):
    async with console("5") as it:
        await it.until("First")
        await filled(it, "z", HoldForm, None, "a case")
        await it.until("Sets a legal hold on chat:c1")
        await it.press("ctrl+s")
        await it.until(lambda: done(fake, "hold") == [("hold", "chat:c1", "a case")])


@SIZES
async def test_forgetting_says_what_goes_and_takes_the_typed_name(console, fake, size):
    async with console("8", size=size) as it:
        await filled(it, "f", Forget, "bob", "asked for")
        await it.until("Forget bob: 3 chats with 9 questions, and the key")
        await it.press("ctrl+s")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.type("ann")
        await it.press("enter")
        await it.until("That is not the name")
        assert not done(fake, "forget")
        await it.press("ctrl+u")
        await it.type("bob")
        await it.press("enter")
        await it.until(lambda: done(fake, "forget") == [("forget", "bob", "asked for")])


async def test_who_may_not_sees_why_and_a_form_knows_on_whom_he_may(console, fake, doubles):
    fake.me = doubles.somebody(("access.read", "*"), ("chats.hold", "user:bob"))
    async with console("8") as it:
        await it.until(lambda: it.app.state.me is not None)
        dim = {text.split()[0] for text, may in it.app.screen.query_one(KeyLine).keys if not may}
        assert {"c", "f"} <= dim
        await it.press("f")
        await it.until("ann may not chats.forget")
        it.app.screen.action_hold()
        await it.until(lambda: isinstance(it.app.screen, HoldForm))
        await it.press("ctrl+u")
        await it.type("user:eve")
        await it.until("ann may chats.hold on user:bob only, not on user:eve")
