"""What Overview says at a glance."""

import pytest


async def test_a_record_that_the_picture_has_and_the_events_tell_again_stands_there_once(console, fake, doubles):
    async with console("1") as it:
        await it.until("deployments.create")
        fake.push("audit", "gateway:local", doubles.record(3, verb="gateway.start"))
        fake.push("audit", "gateway:local", doubles.record(4, verb="gateway.ready"))
        await it.until("gateway.ready")
        assert [row.key for row in it.app.screen.query_one("#last").rows] == ["4", "3", "2", "1"]


@pytest.mark.parametrize("state", ["failed", "degraded", "starting", "pending"])
async def test_all_is_well_only_where_everything_that_should_run_does(console, fake, doubles, state):
    fake.deployed = [doubles.deployment("chat"), doubles.deployment("tiny", state=state, ready=0)]
    async with console("1") as it:
        await it.until("1 of 2 deployments ready")
        assert "All is well" not in it.text and not it.app.screen.query_one("#verdict").has_class("well")
        assert ("Look at tiny: 1 of 2" in it.text) == (state in ("failed", "degraded"))
        fake.push("deployment", "deployment:tiny", doubles.deployment("tiny"))
        await it.until("All is well: 2 of 2 deployments ready")


async def test_the_disk_is_told_as_memory_is_what_is_used_of_what_there_is(console):
    async with console("1") as it:
        await it.until("39.1 GiB of 87.9 GiB")
