"""The sampler: one look for all who read, PSS seldom, and a host that cannot be read."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from core.errors import Failed
from core.events import Bus
from core.nouns import NodeSample, ProcessSample
from core.settings import SamplesTable
from core.telemetry.sampler import Sampler


class Host:
    """A source whose time is its own, and who notes what it is asked."""

    name = "local"

    def __init__(self) -> None:
        self.now = 100.0
        self.looks = 0
        self.pss: list[bool] = []
        self.broken = ""

    def clock(self) -> float:
        return self.now

    async def sample(self) -> NodeSample:
        self.looks += 1
        if self.broken:
            raise Failed(self.broken)
        return NodeSample(
            time=self.now, node="local", cpu_percent=0, load1=0, memory_bytes=1, free_bytes=1, pressure=0,
            disk_free_bytes=0, disk_bytes=0,
        )  # fmt: skip

    async def samples(self, launches: Sequence[str], *, pss: bool = False) -> list[ProcessSample]:
        self.pss.append(pss)
        return [
            ProcessSample(time=self.now, launch=each, cpu_percent=0, rss_bytes=1, anon_bytes=1, pss_bytes=int(pss))
            for each in launches
        ]


class Sink:
    def __init__(self) -> None:
        self.seen: list[Sequence[ProcessSample]] = []

    async def __call__(self, samples: Sequence[ProcessSample]) -> None:
        self.seen.append(samples)


def made(host: Host, sink: Sink, launches: Sequence[str] = ("a", "b"), **table: float) -> Sampler:
    return Sampler(host, Bus(), lambda: SamplesTable(**table), launches=lambda: launches, sink=sink, clock=host.clock)


async def test_pss_is_measured_each_30_seconds_and_the_rest_each_second() -> None:
    host, sink = Host(), Sink()
    sampler = made(host, sink)
    for _ in range(61):
        await sampler.look()
        host.now += 1
    assert [second for second, pss in enumerate(host.pss) if pss] == [0, 30, 60]
    assert len(sink.seen) == 61 and [each.launch for each in sink.seen[0]] == ["a", "b"]


async def test_pss_is_measured_when_somebody_asks_but_not_twice_a_second() -> None:
    host, sink = Host(), Sink()
    sampler = made(host, sink)
    await sampler.look()
    for later, measured in ((5, 2), (0.5, 2), (0.6, 3)):
        host.now += later
        await sampler.measure()
        assert host.pss.count(True) == measured
    assert [each.pss_bytes for each in sink.seen[-1]] == [1, 1]
    host.now += 29
    await sampler.look()
    assert host.pss[-1] is False  # the next one is due 30 s after that
    await made(host, sink, ()).measure()
    assert len(sink.seen) == 4


async def test_what_was_sampled_is_read_by_all_and_bounded() -> None:
    host, sink = Host(), Sink()
    sampler = made(host, sink, (), keep=10)
    assert sampler.last is None and sampler.since(60) == []
    for _ in range(25):
        await sampler.look()
        host.now += 1
    looks = host.looks
    assert [each.time for each in sampler.since(3)] == [121, 122, 123, 124]
    assert len(sampler.since(3600)) == 10 and sampler.last is not None and host.looks == looks
    assert not sink.seen and not host.pss  # nothing runs: no process is looked at


async def test_a_host_that_cannot_be_read_is_said_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    host, sink = Host(), Sink()
    host.broken = "it is away"
    sampler = made(host, sink, every_s=0.01)
    with caplog.at_level(logging.WARNING):
        running = asyncio.create_task(sampler.run())
        async with asyncio.timeout(10):
            while host.looks < 3:
                await asyncio.sleep(0.01)
            host.broken = ""
            while not sink.seen:
                await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert [record.getMessage() for record in caplog.records] == ["no sample of local: it is away"]
