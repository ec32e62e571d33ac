"""The question before something is done for good."""

import pytest
from textual.widgets import Input

from tui.screens.confirm import Confirm

NAME = "llama-3.1-nemotron-nano-4b-instruct-v1.1-imatrix-q4_k_m-00001"


@pytest.mark.parametrize("size", [(120, 36), (80, 24), (40, 12)], ids=["120x36", "80x24", "40x12"])
async def test_all_of_a_long_name_that_has_to_be_typed_is_shown_with_what_to_press(console, fake, doubles, size):
    fake.stored = [doubles.model(NAME)]
    fake.deployed = []
    async with console("3", size=size) as it:
        await it.until(NAME[:10])
        await it.press("x")
        await it.until(lambda: isinstance(it.app.screen, Confirm))
        box = it.app.screen.query_one("Vertical").region
        rows = [row[box.x + 1 : box.right - 1].strip() for row in it.text.split("\n")[box.y + 1 : box.bottom - 1]]
        assert f"Type this and enter:{NAME}" in "".join(rows) and "esc: no" in rows
        it.app.screen.query_one(Input).value = NAME
        await it.press("enter")
        await it.until(lambda: ("remove_model", NAME, [f"{NAME}@1"]) in fake.calls)
