"""The log view goes on where it was after a daemon that died, a connection that was cut, and another launch."""

import asyncio

import pytest

from core.errors import NoDaemon, NotFound
from core.nouns import LogText


class Growing:
    """A log that grows; `wrong` is raised once for each error in it."""

    def __init__(self, fake) -> None:
        self.text, self.launch, self.wrong = "one\n", "l1", []
        self.asked: list[int] = []
        self.fake = fake
        fake.logs = self.logs

    async def logs(self, name, replica=0, start=-65536, previous=False, wait=0.0, **_):
        self.asked.append(start)
        if self.wrong:
            raise self.wrong.pop(0)
        for _ in range(10):
            if not self.fake.up:
                raise NoDaemon("the daemon does not answer", "the double is down")
            if start < 0 or len(self.text) > start:
                break
            await asyncio.sleep(0.01)
        begin = max(0, start)
        return LogText(launch=self.launch, start=begin, end=len(self.text), text=self.text[begin:], ended=False)


@pytest.fixture
def log(fake):
    return Growing(fake)


async def opened(it) -> None:
    await it.until("replica")
    await it.press("l")
    await it.until("one")


async def test_it_goes_on_after_the_daemon_died_with_no_line_lost_or_twice(console, fake, log):
    async with console("2") as it:
        await opened(it)
        fake.drop()
        await it.until("reconnecting")
        log.text += "two\n"
        await it.pilot.pause(0.2)
        assert "two" not in it.text
        fake.up = True
        await it.until("two", tries=500)
        log.text += "three\n"
        await it.until("three")
        assert [row.cells[0] for row in it.app.screen.table().rows] == ["one", "two", "three"]
        await it.until(lambda: "does not answer" not in it.text)


async def test_a_connection_that_alone_is_cut_is_made_again(console, fake, log):
    async with console("2") as it:
        await opened(it)
        log.wrong += [NoDaemon("the daemon went away", "a test"), ConnectionResetError("cut")]
        log.text += "two\n"
        await it.until("two", tries=500)
        assert [row.cells[0] for row in it.app.screen.table().rows] == ["one", "two"]
        await it.until(lambda: "went away" not in it.text)


async def test_another_launch_that_began_meanwhile_is_read_from_its_begin(console, fake, log):
    async with console("2") as it:
        await opened(it)
        fake.drop()
        await it.until("reconnecting")
        log.text, log.launch = "new one\nnew two\n", "l2"
        fake.up = True
        await it.until("new two", tries=500)
        assert [row.cells[0] for row in it.app.screen.table().rows] == ["new one", "new two"]


async def test_what_is_not_there_is_said_and_not_asked_for_again_and_again(console, fake, log):
    async with console("2") as it:
        await opened(it)
        log.wrong.append(NotFound("no deployment 'chat'", "a test"))
        await it.until("no deployment 'chat'")
        count = len(log.asked)
        await it.pilot.pause(0.3)
        assert len(log.asked) == count
