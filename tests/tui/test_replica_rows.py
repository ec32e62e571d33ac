"""The rows of replicas on Deployments: their order, and names that can be read."""

from tui.widgets.table import Table


async def test_the_tenth_comes_after_the_ninth(console, fake, doubles):
    fake.running = [doubles.replica(f"chat/{n}") for n in (10, 0, 9, 11, 1, 2)]
    async with console("2") as it:
        await it.until(lambda: len(it.app.screen.query_one("#replicas", Table).rows) == 6)
        rows = it.app.screen.query_one("#replicas", Table).rows
        assert [row.key for row in rows] == [f"chat/{n}" for n in (0, 1, 2, 9, 10, 11)]
