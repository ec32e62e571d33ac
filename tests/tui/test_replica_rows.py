"""The rows of replicas on Deployments: their order, and names that can be read."""

import pytest

from tui.widgets.table import Table


async def test_the_tenth_comes_after_the_ninth(console, fake, doubles):
    fake.running = [doubles.replica(f"chat/{n}") for n in (10, 0, 9, 11, 1, 2)]
    async with console("2") as it:
        await it.until(lambda: len(it.app.screen.query_one("#replicas", Table).rows) == 6)
        rows = it.app.screen.query_one("#replicas", Table).rows
        assert [row.key for row in rows] == [f"chat/{n}" for n in (0, 1, 2, 9, 10, 11)]


NAME = "smollm2-135m/0"


def lines(it):
    """The titles and the first row of the lower table, as drawn."""
    table = it.app.screen.query_one("#replicas", Table)
    return [table.render_line(y).text for y in (0, 1)]


@pytest.mark.parametrize("reason", ["", "the engine ended with signal 9 (killed) four times in a minute"])
@pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])
async def test_a_name_is_not_cut_while_there_is_room_or_less_needed_columns(console, fake, doubles, size, reason):
    fake.deployed = [doubles.deployment("smollm2-135m")]
    fake.running = [doubles.replica(NAME, reason=reason)]
    async with console("2", size=size) as it:
        await it.until(lambda: it.app.screen.query_one("#replicas", Table).rows)
        head, row = lines(it)
        assert NAME in row and reason[:9] in row
        assert all(title in head for title in ("state", "restarts", "reason"))
        assert reason or size[0] < 120 or "engine" in head, "an empty reason lends its room before a column goes"
