"""What Overview says at a glance."""


async def test_a_record_that_the_picture_has_and_the_events_tell_again_stands_there_once(console, fake, doubles):
    async with console("1") as it:
        await it.until("deployments.create")
        fake.push("audit", "gateway:local", doubles.record(3, verb="gateway.start"))
        fake.push("audit", "gateway:local", doubles.record(4, verb="gateway.ready"))
        await it.until("gateway.ready")
        assert [row.key for row in it.app.screen.query_one("#last").rows] == ["4", "3", "2", "1"]
