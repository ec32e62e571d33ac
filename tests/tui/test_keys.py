"""Every key of the keymap on its screen: what it asks of the daemon, and what it says when it can't."""

import base64

import pytest
from textual.widgets import Input

from tui.keymap import EVERYWHERE, FROM_ANYWHERE, ROOMS
from tui.plain import draws_ascii
from tui.screens.confirm import Confirm
from tui.screens.deploy import DeployForm, ScaleForm
from tui.screens.explain import Explain
from tui.screens.importing import ImportForm
from tui.screens.log import Log
from tui.screens.whole import Whole
from tui.widgets.keyline import KeyLine
from tui.widgets.table import Table

SIZES = pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])


def dimmed(it):
    """The keys at the foot that do nothing now."""
    return {text.split()[0] for text, free in it.app.screen.query_one(KeyLine).keys if not free}


def test_no_key_means_two_things_on_one_screen():
    for room, keys in ROOMS.items():
        names = [name for key in (*keys, *EVERYWHERE, *FROM_ANYWHERE) for name in key.keys.split(",")]
        assert len(names) == len(set(names)), room


@pytest.mark.parametrize(
    ("key", "screen"), [("d", DeployForm), ("c", ScaleForm), ("l", Log), ("e", Explain), ("enter", Explain)]
)
async def test_a_key_of_deployments_opens_its_screen_and_escape_comes_back(console, key, screen):
    async with console("2") as it:
        await it.until("replica")
        await it.press(key)
        await it.until(lambda: isinstance(it.app.screen, screen))
        await it.press("escape", "escape")
        await it.until(lambda: it.app.screen.ROOM == "deployments")


@pytest.mark.parametrize(
    ("key", "call"),
    [("s", ("stop_deployment", "chat")), ("r", ("restart_deployment", "chat"))],
    ids=["stop", "restart"],
)
async def test_stopping_and_restarting_ask_once(console, fake, key, call):
    async with console("2") as it:
        await it.until("replica")
        await it.press(key)
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("n")
        await it.until(lambda: it.app.screen.ROOM == "deployments")
        assert call not in fake.calls
        await it.press(key)
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.press("y")
        await it.until(lambda: call in fake.calls)


async def test_a_stopped_deployment_is_started_by_s_and_not_restarted(console, fake, doubles):
    fake.deployed = [doubles.deployment("chat", wanted="stopped", state="stopped", ready=0)]
    async with console("2") as it:
        await it.until("stopped")
        assert dimmed(it) == {"r"}
        await it.press("r")
        await it.until("chat is stopped: s starts it")
        await it.press("s")
        await it.until(lambda: ("start_deployment", "chat") in fake.calls)


async def test_scaling_says_what_it_needs_and_asks_for_it(console, fake):
    async with console("2") as it:
        await it.until("replica")
        await it.press("c")
        await it.until("1 x 300 MiB = 300 MiB")
        await it.press("backspace", "3", "enter")
        await it.until(lambda: ("scale", "chat", 3) in fake.calls)


async def test_with_nothing_deployed_every_key_but_deploy_is_dim_and_says_why(console, fake):
    fake.deployed = []
    async with console("2") as it:
        await it.until("Nothing is deployed")
        assert dimmed(it) == {"s", "r", "c", "x", "l", "e", "y"}
        await it.press("l")
        await it.until("No deployment is selected")


async def test_without_a_daemon_what_asks_it_is_dim(console, fake):
    async with console("2") as it:
        await it.until("replica")
        assert not dimmed(it)
        fake.drop()
        await it.until(lambda: {"d", "s", "x"} <= dimmed(it))
        await it.press("d")
        await it.until("The daemon does not answer now")


async def test_the_keys_of_models(console, fake, doubles):
    fake.stored = [doubles.model("gemma"), doubles.model("zoo")]
    fake.deployed = [doubles.deployment("chat", spec=doubles.DeploymentSpec(name="chat", model="gemma"))]
    async with console("3") as it:
        await it.until("gemma")
        assert dimmed(it) == {"c", "m", "x"}  # the sample is stored, gemma is in use and has one version
        await it.press("x")
        await it.until("gemma is used by chat")
        await it.press("j")
        assert dimmed(it) == {"c", "m"}
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        await it.type("zoo")
        await it.press("enter")
        await it.until(lambda: ("remove_model", "zoo", ["zoo@1"]) in fake.calls)
        await it.press("d")
        await it.until(lambda: isinstance(it.app.screen, DeployForm))
        assert it.app.screen.value("model") == "zoo"
        await it.press("escape", "escape", "i")
        await it.until(lambda: isinstance(it.app.screen, ImportForm))
        await it.type("/tmp")
        await it.until("Reads /tmp, hashes it")


async def test_the_sample_is_imported_by_m_where_it_is_not_stored(console, fake):
    fake.stored = []
    async with console("3") as it:
        await it.until("No model yet")
        await it.press("m")
        await it.until(lambda: ("import_sample", None) in fake.calls)


async def test_a_record_can_be_read_whole_and_the_chain_verified(console, fake, doubles):
    fake.records = [doubles.record(1, reason="because " * 60, after={"ctx": 4096})]
    async with console("9", size=(80, 24)) as it:
        await it.until("because")
        await it.press("e")
        await it.until("because because")
        assert "* ctx" in it.app.screen.text
        assert isinstance(it.app.screen, Whole)
        await it.press("escape", "v")
        await it.until("WRONG at 2 (changed)")


@SIZES
async def test_a_long_error_is_read_whole_by_one_key(console, fake, doubles, size):
    reason = "no room: " + "a sentence with an end. " * 30 + "ENDMARK"
    fake.deployed = [doubles.deployment("chat", state="failed", reason=reason)]
    async with console("2", size=size) as it:
        await it.until("failed")
        assert "ENDMARK" not in it.text
        it.app.say(reason)
        await it.until("! shows all of it")
        await it.press("exclamation_mark")
        await it.until("ENDMARK")
        await it.press("escape")
        await it.until(lambda: it.app.screen.ROOM == "deployments")


async def test_f5_reads_anew_from_everywhere_and_chat_has_alt_5(console, fake):
    async with console("3") as it:
        before = fake.pictures
        await it.press("f5")
        await it.until(lambda: fake.pictures == before + 1)
        assert it.app.current_mode == "models"
        await it.press("slash", "a", "f5")
        await it.until(lambda: fake.pictures == before + 2)
        await it.press("alt+5")
        await it.until(lambda: it.app.current_mode == "chat")
        for key, mode in (("f1", "overview"), ("f2", "deployments"), ("f3", "models"), ("f9", "audit")):
            await it.press(key)
            await it.until(lambda mode=mode: it.app.current_mode == mode)


async def test_help_says_which_keys_do_nothing_now_and_why(console, fake):
    fake.deployed = []
    async with console("2") as it:
        await it.until("Nothing is deployed")
        await it.press("question_mark")
        await it.until("not now")
        (stop,) = [row for row in it.app.screen.query_one(Table).rows if row.cells[:2] == ("s", "Stop / start")]
        assert stop.dim and "No deployment is selected" in stop.cells[3]


async def test_the_palette_does_what_the_key_does_and_says_why_not(console, fake):
    async with console("2") as it:
        await it.until("replica")
        await it.press("colon")
        await it.type("logs")
        await it.press("enter")
        await it.until(lambda: isinstance(it.app.screen, Log))
        await it.press("escape", "j", "colon")
        await it.type("models")
        await it.press("enter")
        await it.until(lambda: it.app.current_mode == "models")
        await it.press("ctrl+p")
        await it.type("sample")
        await it.press("enter")
        await it.until("The sample is here already")


async def test_tables_move_by_letters_arrows_and_pages(console, fake, doubles):
    fake.deployed = [doubles.deployment(f"d{n:02}") for n in range(40)]
    async with console("2", size=(80, 24)) as it:
        await it.until("d00")
        table = it.app.screen.query_one("#deployments", Table)
        for key, row in (("j", 1), ("down", 2), ("k", 1), ("up", 0), ("G", 39), ("g", 0), ("end", 39), ("home", 0)):
            await it.press(key)
            assert table.cursor == row, key
        await it.press("pagedown")
        assert table.cursor == table.page
        await it.press("pageup")
        assert table.cursor == 0


async def test_y_copies_by_osc_52(console, monkeypatch):
    async with console("2") as it:
        await it.until("replica")
        written = []
        monkeypatch.setattr(it.app._driver, "write", written.append)
        await it.press("y")
        await it.until("Copied: chat")
        assert f"\x1b]52;c;{base64.b64encode(b'chat').decode()}\a" in written


async def test_the_log_follows_filters_and_shows_a_long_line_whole(console, fake):
    fake.log = "one\n" + "long " * 60 + "END\ntwo\n"
    async with console("2", size=(80, 24)) as it:
        await it.until("replica")
        await it.press("l")
        await it.until("two")
        assert "END" not in it.text and dimmed(it) == {"tab"}
        await it.press("slash")
        await it.type("long")
        await it.press("enter")
        await it.until(lambda: len(it.app.screen.query_one(Table).rows) == 1)
        await it.press("enter")
        await it.until("END")


@pytest.mark.parametrize("screen", ["1", "2", "3", "5", "9"])
async def test_a_smaller_terminal_and_back_loses_nothing(console, fake, doubles, screen):
    fake.deployed = [doubles.deployment(f"d{n:02}") for n in range(40)]
    async with console(screen) as it:
        await it.pilot.pause()
        if screen == "2":
            await it.press("G")
        await it.pilot.pause(0.3)
        before = it.text
        await it.pilot.resize_terminal(80, 24)
        await it.until(lambda: it.text.count("\n") == 23)
        assert all(len(line) <= 80 for line in it.text.split("\n"))
        if screen == "2":
            assert "d39" in it.text
        await it.pilot.resize_terminal(120, 36)
        await it.until(lambda: it.text == before)


async def test_a_form_keeps_what_is_typed_through_a_resize(console):
    async with console("2") as it:
        await it.until("replica")
        await it.press("d")
        await it.until(lambda: isinstance(it.app.focused, Input))
        await it.type("x")
        await it.pilot.resize_terminal(80, 24)
        await it.until(lambda: it.text.count("\n") == 23)
        assert it.app.screen.value("model").endswith("x") and isinstance(it.app.focused, Input)


async def test_ascii_draws_nothing_else(console, fake, doubles):
    fake.deployed = [doubles.deployment("chat", reason="caf\u00e9 \u2603 \u6f22")]
    async with console("2", ascii=True) as it:
        await it.until("replica")
        background = it.app.screen.background_colors[1]
        for key in ("x", "escape", "1", "5", "colon"):
            await it.press(key)
            await it.pilot.pause(0.1)
            for strip in it.app.screen._compositor.render_strips():
                drawn = list(strip)
                for each in it.app.get_line_filters():
                    drawn = each.apply(drawn, background)
                text = "".join(s.text for s in drawn)
                assert text.isascii() and len(text) == strip.cell_length


async def test_where_there_is_no_colour_a_dim_key_has_parentheses(console, fake, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    fake.deployed = []
    async with console("2") as it:
        await it.until("(s Stop)")
        assert "d Deploy" in it.text and "(d Deploy)" not in it.text


def test_ascii_is_drawn_where_the_locale_asks_for_it():
    assert draws_ascii({}, "ISO-8859-1") and draws_ascii({"LC_ALL": "C"}, "utf-8")
    assert not draws_ascii({}, "UTF-8") and not draws_ascii({"LC_ALL": "de_DE.UTF-8"}, "UTF-8")


def test_the_console_is_opened_without_the_command_line():
    """Importing click and the verbs would cost the first paint."""
    import subprocess
    import sys

    told = "import sys; import tui.__main__, tui.app; print('click' in sys.modules, 'tui.cli' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["False", "False"]


@SIZES
async def test_help_and_palette_say_whole_why_a_key_does_nothing(console, fake, doubles, size):
    """At 80 columns eight letters of the reason have room in its column."""
    fake.me = doubles.somebody(("deployments.read", "*"))
    whole = "ann may not deployments.create: no grant gives it (screen 8 shows yours)"
    async with console("2", size=size) as it:
        await it.until(lambda: "d" in dimmed(it))
        await it.press("question_mark")
        await it.until(lambda: f"not now: {whole}" in " ".join(it.text.split()))
        await it.press("escape", "colon")
        await it.until("what to do")
        await it.press("down", "up")
        await it.until("Not now: ann may not deployments.create: no grant gives it (screen 8 shows")


@pytest.mark.parametrize(("screen", "key", "words"), [("2", "d", "[2 Deployments]"), ("8", "n", "[8 Access]")])
async def test_a_form_says_on_which_screen_one_is(console, screen, key, words):
    async with console(screen) as it:
        await it.press(key)
        await it.until(lambda: it.app.screen.query("#consequence"))
        await it.until(words)


@pytest.mark.parametrize(("size", "all"), [((80, 24), False), ((200, 36), True)])
async def test_the_line_of_keys_marks_that_there_are_more_than_fit(console, size, all):
    async with console("8", size=size) as it:
        foot = it.app.screen.query_one(KeyLine)
        await it.until(lambda: foot.keys)
        shown = "".join(segment.text for segment in foot.render_line(0)).rstrip()
        assert shown.endswith("…") is not all and len(shown) <= size[0]
        assert (foot.keys[-1][0] in shown) is all and "…" not in shown[:-1]
