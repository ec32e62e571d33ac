"""How long what was said stands there."""

from core.errors import ErrorBody
from core.nouns import ImportJob
from tui.screens import room


async def test_the_next_key_takes_away_what_was_said_of_another_row(console, fake):
    async with console("2") as it:
        await it.until("replica")
        it.app.say("no room for chat: free some")
        await it.until("! no room for chat")
        await it.press("j")
        await it.until(lambda: "no room for chat" not in it.text)


async def test_the_key_that_shows_all_of_it_leaves_it(console, fake):
    async with console("2") as it:
        await it.until("replica")
        it.app.say("no room " * 60 + "ENDMARK")
        await it.press("exclamation_mark")
        await it.until("ENDMARK")


async def test_typing_in_a_field_leaves_it(console, fake):
    async with console("2") as it:
        await it.until("replica")
        await it.press("d")
        await it.until("Deploy a model")
        it.app.say("no room for chat: free some")
        await it.press("tab", "4", "0")
        await it.until("40")
        assert "! no room for chat" in it.text


async def test_news_go_by_themselves_and_a_refusal_stays(console, fake, monkeypatch):
    monkeypatch.setattr(room, "NEWS_S", 0.2)
    async with console("3") as it:
        it.app.go("deployments", "chat", say="chat is being started")
        await it.until("! chat is being started")
        await it.until(lambda: "being started" not in it.text)
        it.app.screen.say("more news", news=True)
        it.app.say("no room for chat: free some")
        await it.pilot.pause(0.5)
        assert "! no room for chat" in it.text


def imported(id, state, **fields):
    return ImportJob(id=id, name=id, origin="file", state=state, **fields)


async def test_an_import_that_failed_is_told_until_it_was_read_or_the_next_one_is_done(console, fake):
    failed = imported("arr", "failed", error=ErrorBody("invalid", "arr cannot be taken", "it is no model"))
    async with console("3") as it:
        await it.until("gemma")
        fake.push("import", "import:arr", failed)
        await it.until("arr cannot be taken")
        await it.press("j", "k")
        assert "arr cannot be taken" in it.text
        await it.press("escape")
        await it.until(lambda: "cannot be taken" not in it.text)
        fake.push("import", "import:second", imported("second", "failed", error=failed.error))
        await it.until("arr cannot be taken")
        fake.push("import", "import:third", imported("third", "done"))
        await it.until(lambda: "cannot be taken" not in it.text)
