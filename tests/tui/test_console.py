"""The console on a double of the client (double.py), at both sizes."""

import importlib.util
from pathlib import Path

import pytest
from textual.widgets import Input

from core.nouns import NodeLabels
from tui.app import Corral
from tui.screens.confirm import Confirm
from tui.screens.room import Line
from tui.widgets.question import Question
from tui.widgets.table import Table

_spec = importlib.util.spec_from_file_location("console_double", Path(__file__).with_name("double.py"))
double = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(double)

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


def text_of(app):
    return "\n".join("".join(segment.text for segment in strip) for strip in app.screen._compositor.render_strips())


async def until(pilot, true, tries=150):
    for _ in range(tries):
        if true():
            return
        await pilot.pause(0.02)
    raise AssertionError(text_of(pilot.app))


@pytest.fixture
def fake():
    return double.Double()


def console(fake, **options):
    return Corral(fake.connect, refresh_s=0.2, **options)


@SIZES
async def test_every_screen_opens_by_its_digit(fake, size):
    app = console(fake)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: "of 2 deployments" in text_of(app) or "Look at embed" in text_of(app))
        await until(pilot, lambda: "failed" in text_of(app))
        for key, word in (("2", "replica"), ("3", "gemma"), ("9", "deployments.create"), ("5", "First"), ("1", "cpu")):
            await pilot.press(key)
            await until(pilot, lambda word=word: word in text_of(app))


@SIZES
async def test_keys_are_text_in_a_field_and_alt_digit_leaves(fake, size):
    app = console(fake)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("5", "i")
        await until(pilot, lambda: isinstance(app.focused, Question))
        await pilot.press("1", "q", "2")
        assert app.focused.value == "1q2"
        await pilot.press("alt+3")
        await until(pilot, lambda: app.current_mode == "models")


async def test_filter_narrows_and_escape_clears(fake):
    app = console(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("3")
        await until(pilot, lambda: len(app.screen.query_one(Table).rows) == 4)
        await pilot.press("slash", "g", "e", "m")
        await until(pilot, lambda: len(app.screen.query_one(Table).rows) == 1)
        await pilot.press("escape")
        await until(pilot, lambda: len(app.screen.query_one(Table).rows) == 4)


async def test_removing_needs_the_name(fake):
    app = console(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one(Table).rows)
        await pilot.press("x")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n", "o", "enter")
        assert isinstance(app.screen, Confirm) and not fake.calls
        app.screen.query_one(Input).value = "chat"
        await pilot.press("enter")
        await until(pilot, lambda: ("remove_deployment", "chat") in fake.calls)


@SIZES
async def test_the_deploy_form_shows_the_plan_and_the_refusal(fake, size):
    fake.room = False
    app = console(fake)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("2", "d")
        await until(pilot, lambda: "DOES NOT FIT" in text_of(app))
        await pilot.press("ctrl+s")
        await until(pilot, lambda: "no room in the double" in text_of(app))


async def test_hostile_strings_never_reach_the_screen(fake):
    evil = "x\x1b]52;c;aGFjaw==\x07\x1b[31m\x9b2J\u202ey"
    fake.deployed = [double.deployment("chat", reason=evil)]
    fake.records = [double.record(1, reason=evil, object=evil)]
    fake.log = evil + "\n"
    fake.pieces = [evil, "\x1b[2J end"]
    app = console(fake)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.client is not None)
        for keys in (["2"], ["l"], ["escape", "9"], ["5", "enter"]):
            await pilot.press(*keys)
            await pilot.pause(0.1)
            assert not set(text_of(app)) & {"\x1b", "\x07", "\x9b", "\u202e"}
        await until(pilot, lambda: isinstance(app.focused, Question))
        await pilot.press("h", "i", "enter")
        await until(pilot, lambda: "44.5 tok/s" in text_of(app))
        assert not set(text_of(app)) & {"\x1b", "\x07", "\x9b", "\u202e"}


async def test_a_lost_daemon_leaves_the_picture_with_its_age_and_comes_back(fake):
    app = console(fake)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.state.connection == "live")
        fake.drop()
        await until(pilot, lambda: "reconnecting" in app.screen.query_one("#bar", Line).text)
        assert "old" in app.screen.query_one("#bar", Line).text and "embed" in text_of(app)
        fake.up = True
        await until(pilot, lambda: app.state.connection == "live")


async def test_an_event_changes_one_cell(fake):
    app = console(fake)
    async with app.run_test(size=(120, 36)) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("2")
        await until(pilot, lambda: app.screen.query_one("#replicas", Table).rows)
        table = app.screen.query_one("#replicas", Table)
        regions = []
        real = table.refresh
        table.refresh = lambda *a, **k: (regions.extend(a or ["all"]), real(*a, **k))[1]
        fake.push("replica", "replica:chat/0", double.replica("chat/0", tokens_per_second=77.7))
        await until(pilot, lambda: "77.7" in text_of(app))
        assert len(regions) == 1 and regions[0].height == 1 and regions[0].width == 7


async def test_no_color_writes_no_colour(fake, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    app = console(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.client is not None)
        filtered = [f.apply(list(s), app.screen.background_colors[1]) for s in app.screen._compositor.render_strips()
                    for f in app.get_line_filters()]  # fmt: skip
        assert filtered and not any(g.style and (g.style.color or g.style.bgcolor) for line in filtered for g in line)


async def test_help_and_palette_know_the_screen(fake):
    app = console(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("9", "question_mark")
        await until(pilot, lambda: "Verify chain" in text_of(app))
        await pilot.press("escape", "ctrl+p", "v", "e", "r", "i", "enter")
        await until(pilot, lambda: "WRONG at 2" in text_of(app))


@SIZES
async def test_a_form_shows_each_field_beside_its_label(fake, size):
    app = console(fake)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("2", "d")
        await until(pilot, lambda: "Fits" in text_of(app))
        for field in app.screen.query(Input):
            assert field.region.height == 1 and 0 < field.region.x < field.region.right <= size[0]


async def test_a_refused_question_stays_in_the_field_with_the_reason_below(fake):
    async def full(*args, **how):
        raise double.NoRoom("Not asked", "the context is full", "press f to forget the oldest turns, then enter")

    fake.ask = full
    app = console(fake)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: app.client is not None)
        await pilot.press("5")
        await until(pilot, lambda: "First" in text_of(app))
        await pilot.press("enter")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "ask")
        await pilot.press("w", "h", "y", "enter")
        await until(pilot, lambda: "the context is full" in text_of(app))
        assert app.screen.query_one("#ask", Question).value == "why" and app.focused.id == "ask"


async def test_a_fall_of_the_console_prints_no_local_variable(fake, capsys):
    app = console(fake)

    def falls() -> None:
        said = "".join(("hu", "sh"))
        assert said
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with app.run_test() as pilot:
            app.call_later(falls)
            await pilot.pause()
    told = capsys.readouterr().err
    assert "ZeroDivisionError" in told and "hush" not in told


@SIZES
async def test_the_deploy_form_marks_and_says_what_it_serves(console, fake, doubles, size):
    class Nodes:
        async def ls(self):
            return [NodeLabels(node="local", labels={"zone": "open"})]

    fake.nodes = Nodes()
    async with console("2", size=size) as it:
        await it.until("replica")
        await it.press("d")
        await it.until("sets 300 MiB")
        form = it.app.screen
        for key, text in (("serves", "embedding"), ("sensitive", "zone=secure"), ("keys_of", "team:ml, group:staff")):
            form.query_one(f"#field-{key}").value = text
        await it.until(lambda: "local LACKS zone=secure" in " ".join(it.text.split()))
        assert "keys of team:ml, group:staff alone" in " ".join(it.text.split())
        await it.press("ctrl+s")
        await it.until(lambda: [call for call in fake.calls if call[0] == "apply"])
        (_, spec, replace, mark), *_ = (call for call in fake.calls if call[0] == "apply")
        assert spec.embedding and not spec.rerank and not replace
        assert mark == {"labels": ["zone=secure"], "groups": ["team:ml", "group:staff"]}


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("serves", "soup", "serves is one of"),
        ("sensitive", "zone", "KEY=VALUE"),
        ("keys_of", "team:ml", "name its label"),
    ],
)
async def test_the_deploy_form_says_what_is_wrong_with_a_mark(console, fake, key, text, words):
    async with console("2") as it:
        await it.until("replica")
        await it.press("d")
        await it.until("sets 300 MiB")
        it.app.screen.query_one(f"#field-{key}").value = text
        await it.until(words)
        await it.press("ctrl+s")
        await it.until(f"! {words}" if words == "serves is one of" else "! ")
        assert not [call for call in fake.calls if call[0] in ("deploy", "apply")]
