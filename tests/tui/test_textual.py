"""The parts of Textual that are not public and that the console rests on: an update that moves one fails here, by name.

There is no public way to write less than Textual does: line filters see no frame and a driver sees no cells. So
pyproject.toml keeps Textual to one minor version, and what is used of its inside is listed here.
"""

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from textual import _xterm_parser, events
from textual._compositor import ChopsUpdate, Compositor, CompositorUpdate, LayoutUpdate
from textual.app import App
from textual.drivers import linux_driver

from tui.app import Corral

APP = ("_filters", "_batch_count", "_closed", "_running", "_screen_stacks", "_current_mode")
"""Attributes that App.__init__ sets, used in tui/app.py."""
CALLS = {
    "App._display": (App._display, ["self", "screen", "renderable"]),
    "App._init_mode": (App._init_mode, ["self", "mode"]),
    "App.delay_update": (App.delay_update, ["self", "delay"]),
    "App.refresh_css": (App.refresh_css, ["self", "animate"]),
    "App.get_line_filters": (App.get_line_filters, ["self"]),
    "Compositor.render_strips": (Compositor.render_strips, ["self", "size"]),
    "CompositorUpdate.render_segments": (CompositorUpdate.render_segments, ["self", "console"]),
    "LayoutUpdate": (LayoutUpdate.__init__, ["self", "strips", "region"]),
    "ChopsUpdate": (ChopsUpdate.__init__, ["self", "chops", "spans", "chop_ends"]),
    "ScreenResume": (events.ScreenResume.__init__, ["self", "refresh_styles"]),
}
MEND = "tui/ rests on it: read Textual's source and mend that before the range in pyproject.toml is raised"


def test_textual_is_kept_to_the_minor_version_that_was_read():
    needs = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]["dependencies"]
    (range_,) = [each for each in needs if each.startswith("textual")]
    low, high = re.findall(r"[0-9.]+", range_)
    major, minor = (int(part) for part in low.split(".")[:2])
    assert high == f"{major}.{minor + 1}", f"{range_} lets in versions that nobody has read"
    assert version("textual").startswith(f"{major}.{minor}."), "what is installed is not what pyproject.toml asks for"


@pytest.mark.parametrize("name", CALLS)
def test_what_is_overridden_or_called_has_its_form(name):
    call, arguments = CALLS[name]
    found = list(inspect.signature(call).parameters)
    assert found == arguments, f"{name} takes {found} and not {arguments}: {MEND}"


@pytest.mark.parametrize("name", APP)
def test_what_is_read_of_an_app_is_there(name, fake):
    assert hasattr(Corral(fake.connect), name), f"App.{name} is gone: {MEND}"


def test_what_is_replaced_in_modules_is_there():
    assert "getincrementaldecoder" in vars(linux_driver), f"the driver decodes in another way: {MEND}"
    assert isinstance(_xterm_parser.ANSI_SEQUENCES_KEYS, dict), f"the parser knows keys in another way: {MEND}"


async def test_every_frame_is_of_a_kind_that_is_known(console):
    """One of a new kind would be written whole: right, and several times the bytes."""
    from tui.ink import pieces_of

    seen = set()
    async with console("2") as it:
        whole = it.app._display

        def display(screen, renderable):
            if isinstance(renderable, CompositorUpdate):
                seen.add((type(renderable).__name__, pieces_of(renderable) is not None))
            whole(screen, renderable)

        it.app._display = display
        await it.until("replica")
        await it.press("j", "3", "2", "x")
    assert seen and all(known for _, known in seen), f"{seen}: {MEND}"
