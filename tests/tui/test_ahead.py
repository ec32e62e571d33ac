"""Keys that come in one read, as over a slow line or from a macro, go where they would go one by one."""

from textual import events

from tui.app import Corral
from tui.screens.deploy import DeployForm
from tui.widgets.question import Question


def at_once(it, *keys: str) -> None:
    for key in keys:
        character = key if len(key) == 1 else None
        it.app.post_message(events.Key(key, character))


async def test_a_field_gets_what_was_typed_behind_the_key_that_moved_there(console, fake):
    async with console("3", size=(80, 24)) as it:
        at_once(it, "d", "tab", "ctrl+u", *"hello")
        await it.until(lambda: isinstance(it.app.screen, DeployForm) and it.app.screen.value("name") == "hello")
        model = it.app.screen.value("model")
        at_once(it, "tab", "ctrl+u", *"2048", "shift+tab", "ctrl+u", *"other", "tab", "tab", "ctrl+u", "3")
        await it.until(lambda: it.app.screen.value("parallel") == "3")
        values = [it.app.screen.value(each) for each in ("model", "name", "ctx", "parallel")]
        assert values == [model, "other", "2048", "3"]


async def test_keys_behind_one_that_opens_or_closes_a_screen(console, fake):
    async with console("3", size=(80, 24)) as it:
        at_once(it, "d", "escape", "5", "n", *"hi", "ctrl+j", *"ho")
        await it.until(lambda: isinstance(it.app.focused, Question) and it.app.focused.value == "hi\nho")
        at_once(it, "ctrl+p", *"nothing like it", "escape", *" you")
        await it.until(lambda: isinstance(it.app.focused, Question) and it.app.focused.value == "hi\nho you")


async def test_a_paste_stays_between_the_keys_around_it(console, fake):
    async with console("5") as it:
        at_once(it, "n", "a")
        it.app.post_message(events.Paste("b\nc"))
        at_once(it, "d", "backspace", "e")
        await it.until(lambda: isinstance(it.app.focused, Question) and it.app.focused.value == "ab\nce")


async def test_a_key_that_comes_while_the_console_is_taken_down_is_nobodys(console):
    async with console("5") as it:
        app = it.app
    assert not app.screen_stack
    key = events.Key("a", "a")
    await app.on_event(key)
    app._ahead._flying = key
    app._ahead.done(key)


async def test_a_screen_is_begun_only_when_its_style_sheets_are_read(console, monkeypatch):
    """Else what is made of it at once, with Python 3.12 and newer, is laid out without them: fields without a text."""

    async def nothing(app):
        pass

    monkeypatch.setattr(Corral, "_look_ahead", nothing)
    sheet = next(str(path) for path in DeployForm.CSS_PATH if path.name == "form.tcss")
    async with console("2") as it:
        known, register = [], it.app._register

        def registered(parent, *widgets, **more):
            known.extend(it.app.stylesheet.has_source(sheet, "") for each in widgets if isinstance(each, DeployForm))
            return register(parent, *widgets, **more)

        monkeypatch.setattr(it.app, "_register", registered)
        await it.pilot.press("d")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        assert known == [True]
