"""The bytes that the console writes to a terminal, and that they draw what it means to draw."""

import base64
import importlib.util
import os
import re
import sys
import unicodedata
from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.segment import Segment
from rich.style import Style
from textual._compositor import ChopsUpdate, LayoutUpdate
from textual.geometry import Region
from textual.strip import Strip

from tui.ink import Ink

_spec = importlib.util.spec_from_file_location("pty_terminal", Path(__file__).parents[1] / "benchmarks" / "terminal.py")
terminal = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(terminal)

PROGRAM = [sys.executable, "-P", str(Path(__file__).with_name("console_on_double.py"))]
OURS = re.compile(
    r"\x1b\[[0-9;]*[mH]"  # colours and jumps
    r"|\x1b\[[?<>=][0-9;]*[hlu]|\x1b\[<u|\x1b\[\?[0-9]+\$p"  # modes: screen, mouse, paste
    r"|\x1b\]22;default\x1b\\|\x1b\]22;default\x07"  # the pointer's shape
)
"""All that Textual and the console write besides text."""
STEERS = {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}
"""Categories of characters that are not drawn."""


@pytest.fixture
def run():
    """`run(*arguments, env=…)`: the program in a pseudo-terminal of 120x36, whose bytes are kept."""
    started = []

    def start(*arguments, **env):
        path = {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        made = terminal.Terminal([*PROGRAM, *arguments], (120, 36), {**path, "LANG": "C.UTF-8", **env})
        made.output = bytearray()
        started.append(made)
        made.until(lambda text: "live" in text, 30)
        return made

    yield start
    for each in started:
        each.__exit__()


def left(output: bytes) -> str:
    """What is written besides our own sequences."""
    return OURS.sub("", output.decode())


def press(it, *keys, seen):
    """Press keys one after the other, then read until these words stand on the screen."""
    for key in keys:
        it.press(key)
        it.rest(0.3 if key == "escape" else 0.1)  # escape and a letter at once would be alt and the letter
    it.until(lambda text: seen in text, 30)


def walk(it):
    """Through every screen and what it opens."""
    press(it, "2", seen="[2 Deployments]")
    press(it, "!", seen="y Copy")
    press(it, "escape", "l", seen="LOGEND")
    press(it, "k", "enter", seen="long long")
    press(it, "escape", "escape", "e", seen="is well")
    press(it, "escape", "x", seen="esc: no")
    press(it, "escape", "c", seen="ctrl+s Scale")
    press(it, "escape", "escape", "3", seen="[3 Models]")
    press(it, "j", "x", seen="esc: no")
    press(it, "escape", "9", seen="[9 Audit]")
    press(it, "e", seen="y Copy")
    press(it, "escape", ":", seen="go to")
    press(it, "escape", "5", seen="[5 Chat]")
    press(it, "enter", seen="enter Send")
    press(it, "w", "h", "y", "enter", seen="44.5 tok/s")
    press(it, "escape", "!", seen="y Copy")
    press(it, "escape", "t", seen="The title")
    press(it, "escape", "escape", "1", seen="[1 Overview]")


def test_nothing_that_steers_a_terminal_comes_from_outside(run):
    it = run("--hostile")
    walk(it)
    rest = left(bytes(it.output))
    bad = {hex(ord(c)) for c in rest if unicodedata.category(c) in STEERS}
    assert not bad, bad
    assert b"\x1b[8m" not in it.output and b"\x1b[2J" not in it.output
    assert "END" in rest


def test_a_byte_that_is_no_utf_8_is_a_letter_and_not_the_end(run):
    it = run()
    press(it, "5", seen="[5 Chat]")
    press(it, "enter", seen="enter Send")
    os.write(it._fd, b"caf\xe9 \x9b31m at 5")
    it.until(lambda text: "at 5" in text, 30)
    press(it, "escape", "1", seen="[1 Overview]")


def test_copying_sends_only_base64(run):
    it = run("--hostile")
    press(it, "5", seen="[5 Chat]")
    press(it, "enter", seen="enter Send")
    press(it, "w", "enter", seen="44.5 tok/s")
    press(it, "escape", "y", seen="Copied:")
    (sent,) = re.findall(rb"\x1b\]52;c;([A-Za-z0-9+/=]*)\x07", bytes(it.output))
    text = base64.b64decode(sent).decode()
    assert text.endswith("END") and not {c for c in text if unicodedata.category(c) in STEERS - {"Cc"}}
    assert not {c for c in text if unicodedata.category(c) == "Cc"} - {"\n"}


def test_no_colour_is_written_where_none_is_wanted(run):
    it = run(NO_COLOR="1")
    press(it, "2", "x", seen="esc: no")
    press(it, "escape", "5", seen="[5 Chat]")
    codes = {c for each in re.findall(rb"\x1b\[([0-9;]*)m", bytes(it.output)) for c in each.split(b";")}
    assert codes <= {b"", b"0", b"1", b"2", b"3", b"4", b"7", b"9"}, codes
    assert b"7" in codes  # the cursor's row is still to be seen


def test_the_cursor_of_a_field_is_seen_without_colours(run):
    it = run(NO_COLOR="1")
    press(it, "2", "d", seen="ctrl+s Deploy")
    has_cursor(it)
    press(it, "escape", "escape", "5", seen="[5 Chat]")
    press(it, "enter", seen="enter Send")
    has_cursor(it)
    press(it, "a", "b", seen="ab")
    has_cursor(it)


def has_cursor(it):
    """Reads until one cell of the screen is drawn in reverse, and no other."""
    it.until(lambda text: sum(cell.reverse for row in it._screen.buffer.values() for cell in row.values()) == 1, 30)


def test_ascii_writes_no_other_byte(run):
    it = run("--ascii", "--hostile")
    walk(it)
    assert bytes(it.output).isascii()


def test_a_terminal_that_shrinks_and_grows_is_drawn_anew(run):
    it = run()
    press(it, "2", seen="[2 Deployments]")
    it.settle(0.5, 3)
    before = it.text
    it.resize(80, 24)
    it.until(lambda text: (rows := text.split("\n"))[0].rstrip().endswith("live") and "? Help" in rows[-1], 10)
    it.resize(120, 36)
    it.until(lambda text: text == before, 10)
    it.resize(80, 24)  # and so fast that the console sees its old size again
    it.resize(120, 36)
    it.until(lambda text: text == before, 10)


@pytest.mark.xdist_group("measures")
def test_idle_it_writes_next_to_nothing(run):
    """The double sends no figures: what is written then is waste."""
    it = run()
    press(it, "5", "enter", seen="enter Send")  # the cursor stands in a field
    it.settle(0.6, 5)
    before = it.bytes
    it.rest(2)
    assert it.bytes - before < 200


# ---------------------------------------------------------------------------------------- tui.ink

WIDTH, ROWS = 12, 4
STYLES = (None, Style(bold=True), Style(color="red"), Style(reverse=True))


def runs_of(letters):
    return st.lists(st.tuples(st.lists(st.sampled_from(letters), max_size=4).map("".join), st.sampled_from(STYLES)))


narrow = runs_of(["a", "b", " ", "\u2588"])
wide = runs_of(["a", " ", "\u6f22", "e\u0301"])


def strip_of(pieces, width):
    return Strip([Segment(text, style) for text, style in pieces]).adjust_cell_length(width)


def cells(screen):
    """Every cell with its character and style."""
    return [[screen.buffer[y][x] for x in range(WIDTH)] for y in range(ROWS)]


def frames_of(runs, starts):
    whole = st.tuples(st.just("all"), st.lists(runs, min_size=ROWS, max_size=ROWS))
    part = st.tuples(st.just("part"), st.integers(0, ROWS - 1), starts, runs)
    return st.lists(st.one_of(whole, part), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(st.one_of(frames_of(narrow, st.integers(0, WIDTH - 1)), frames_of(wide, st.just(0))))
def test_differences_draw_what_whole_frames_draw(frames):
    """Two terminals: one gets every update as Textual writes it, the other what Ink leaves of it."""
    console = Console(color_system="truecolor", force_terminal=True, legacy_windows=False)
    ink, ours, theirs = Ink(), pyte.Screen(WIDTH, ROWS), pyte.Screen(WIDTH, ROWS)
    for screen in (ours, theirs):
        pyte.Stream(screen).feed("\x1b[?7l")  # no wrapping, as Textual asks for
    for kind, *rest in frames:
        if kind == "all":
            lines = [[strip_of(each, WIDTH)] for each in rest[0]]
            update = LayoutUpdate(lines, Region(0, 0, WIDTH, ROWS))
        else:
            y, x, pieces = rest
            chops = [{0: None, x: None} if x else {0: None} for _ in range(ROWS)]
            chops[y][x] = strip_of(pieces, WIDTH - x)
            ends = [[x, WIDTH] if x else [WIDTH] for _ in range(ROWS)]
            update = ChopsUpdate(chops, [(y, x, WIDTH)], ends)
        pyte.Stream(theirs).feed(update.render_segments(console))
        pyte.Stream(ours).feed(ink.changed(update, console))
        assert cells(ours) == cells(theirs)


def test_an_unchanged_frame_writes_nothing_and_a_changed_cell_little():
    console = Console(color_system="truecolor", force_terminal=True, legacy_windows=False)
    ink = Ink()

    def draw(*lines):
        return ink.changed(LayoutUpdate([[strip_of([(x, None)], 40)] for x in lines], Region(0, 0, 40, 2)), console)

    assert len(draw("a" * 40, "b" * 40)) > 80
    assert draw("a" * 40, "b" * 40) == ""
    assert draw("a" * 40, "b" * 20 + "c" + "b" * 19) == "\x1b[2;21Hc"
    ink.forget()
    assert len(draw("a" * 40, "b" * 40)) > 80
