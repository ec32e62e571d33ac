"""A daemon that somebody shut down: the console says so, starts none by itself, and one key starts it."""

import pytest


def tried(fake):
    return fake.calls.count(("reconnect",))


async def shut_down(it, fake, doubles):
    fake.push("audit", "daemon:local", doubles.record(4, verb="daemon.shutdown", object="daemon:local", actor="root"))
    fake.ended = True
    fake.drop()
    await it.until("ended")


@pytest.mark.parametrize("size", [(120, 36), (80, 24)], ids=["120x36", "80x24"])
async def test_every_screen_says_who_ended_it_and_f5_starts_it(console, fake, doubles, size):
    async with console("1", size=size) as it:
        await shut_down(it, fake, doubles)
        for key in "1239":
            await it.press(key)
            await it.until("The daemon was shut down by root: F5 starts it again")
        before = tried(fake)
        await it.until(lambda: tried(fake) >= before + 1)
        fake.up = True  # only what starts a daemon connects
        assert it.app.client is None
        await it.press("f5")
        await it.until("live")
        await it.until(lambda: "shut down by" not in it.text)


async def test_what_asks_it_says_so_instead_of_waiting(console, fake, doubles):
    async with console("2") as it:
        await it.until("replica")
        await shut_down(it, fake, doubles)
        await it.press("d")
        await it.until("! The daemon was shut down by root: F5 starts it again")


async def test_a_daemon_that_was_started_since_is_taken_without_a_key(console, fake, doubles):
    async with console("1") as it:
        await shut_down(it, fake, doubles)
        fake.ended, fake.up = False, True
        await it.until("live")


async def test_one_that_died_is_not_called_shut_down_though_an_earlier_one_was(console, fake, doubles):
    fake.records.append(doubles.record(4, verb="daemon.shutdown", object="daemon:local"))
    fake.records.append(doubles.record(5, verb="daemon.start", object="daemon:local"))
    async with console("1") as it:
        fake.drop()
        await it.until("reconnecting")
        assert "shut down by" not in it.text and "F5" not in it.text
