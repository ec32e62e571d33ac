"""The event ring: order, resuming, and what a slow reader is told."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.events import Bus


async def take(bus: Bus, since: str | None, want: int) -> list[str]:
    got: list[str] = []
    async with asyncio.timeout(5):
        async for batch in bus.follow(since):
            got += [f"{event.type}:{event.object}" for event in batch]
            if len(got) >= want:
                break
    return got


async def test_a_follower_gets_what_came_after_its_id() -> None:
    bus = Bus()
    first = bus.publish("model", "model:a")
    bus.publish("model", "model:b")
    bus.publish("model", "model:c")
    assert await take(bus, first.id, 2) == ["model:model:b", "model:model:c"]


async def test_an_id_of_another_daemon_is_answered_with_resync() -> None:
    bus = Bus()
    bus.publish("model", "model:a")
    assert await take(bus, "dead.1", 1) == ["resync:"]


@pytest.mark.parametrize("bad", ["", "x", "1.2.3", ".", "0.-1", "é.1"])
async def test_an_id_that_is_none_is_answered_with_resync(bad: str) -> None:
    assert await take(Bus(), bad, 1) == ["resync:"]


async def test_a_reader_that_falls_off_the_tail_is_told_once_and_goes_on() -> None:
    bus = Bus(ring=4)
    stream = bus.follow(bus.last)
    for n in range(10):
        bus.publish("sample", str(n))
    async with asyncio.timeout(5):
        assert [event.type for event in await anext(stream)] == ["resync"]
        bus.publish("sample", "new")
        assert [event.object for event in await anext(stream)] == ["new"]


async def test_closing_the_bus_ends_followers() -> None:
    bus = Bus()
    reader = asyncio.create_task(take(bus, None, 1))
    await asyncio.sleep(0)
    bus.close()
    assert await asyncio.wait_for(reader, 5) == []


@given(st.lists(st.integers(1, 9), max_size=20))
def test_a_reader_misses_nothing_or_is_told(bursts: list[int]) -> None:
    """Whatever the bursts: either every event arrives in order, or a resync stands in the gap."""

    async def run() -> None:
        bus = Bus(ring=5)
        stream = bus.follow(bus.last)
        sent = 0
        expected = 0
        for burst in bursts:
            for _ in range(burst):
                bus.publish("n", str(sent))
                sent += 1
            got = await anext(stream)
            if got[0].type == "resync":
                expected = sent
                continue
            for event in got:
                assert event.object == str(expected)
                expected += 1
            assert expected == sent

    asyncio.run(run())
