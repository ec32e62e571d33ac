"""Events over a real socket: one who reads nothing costs a few batches, and learns that events were lost."""

import asyncio
import os
import socket
import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from aiohttp import web

from core.access import Gate, Rights
from core.api import routes
from core.api.server import Server
from core.audit import Audit
from core.client import Client
from core.events import BATCH, Bus
from core.nouns import Event
from core.paths import Paths
from core.store import Store

ASK = b"GET /api/v1/events HTTP/1.1\r\nHost: x\r\n\r\n"
KIB = "x" * 1024


def seen(event: Event) -> bool:
    return event.type != "held back"


@pytest.fixture
async def bus() -> Bus:
    return Bus(ring=512)


@pytest.fixture
async def path(bus: Bus, tmp_path: Path) -> AsyncIterator[str]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit"))
    server = Server(Gate(store, Audit(store, paths), Rights(mode="user", owner_uid=os.getuid())), "the log")
    server.add("GET", "/events", "daemon.read", lambda call: routes.follow(call, bus, seen))
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
    await runner.setup()
    site = web.UnixSite(runner, f"/proc/self/fd/{os.open(tmp_path, os.O_PATH | os.O_CLOEXEC)}/s")
    await site.start()
    yield str(site._path)
    bus.close()
    await runner.cleanup()
    server.close()
    await store.close()


async def test_one_who_reads_nothing_costs_little_and_is_told_to_resync(bus: Bus, path: str) -> None:
    ends = [socket.socket(socket.AF_UNIX) for _ in range(4)]
    for end in ends:
        end.connect(path)
        end.sendall(ASK)
        end.setblocking(False)
        assert b"200 OK" in await asyncio.wait_for(asyncio.get_running_loop().sock_recv(end, 4096), 10)
    await asyncio.sleep(0)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for n in range(20_000):
        bus.publish("sample", str(n), KIB)
        if n % 50 == 0:
            await asyncio.sleep(0)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert grown < 8 << 20, "of 20 MiB to each of them"
    for end in ends:
        taken = b""
        async with asyncio.timeout(20):
            while b'"resync"' not in taken:
                taken += await asyncio.get_running_loop().sock_recv(end, 1 << 20)
        assert len(taken) < 4 << 20
        end.close()


async def test_one_who_goes_is_noticed_by_the_ping(bus: Bus, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "PING_S", 0.02)
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(ASK)
    async with asyncio.timeout(10):
        await reader.readuntil(b": ping\n\n")
        event = bus.publish("sample", "x")
        await reader.readuntil(b"id: " + event.id.encode() + b"\ndata: " + msgspec.json.encode(event) + b"\n\n")
        assert serving()
        writer.close()
        while serving():
            await asyncio.sleep(0.01)


def serving() -> set[asyncio.Task[object]]:
    """The tasks that serve connections."""
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}


@pytest.mark.parametrize(
    ("published", "shown"),
    [
        (["held back"] * 3, []),
        (["for all", "held back"], ["1"]),
        (["held back", "for all"], ["2"]),
        (["held back"] * (BATCH + 3), []),
        (["for all"] * BATCH + ["held back"], [str(n + 1) for n in range(BATCH)]),
    ],
)
@pytest.mark.parametrize("later", ["held back", "for all", None])
async def test_a_look_back_ends_where_the_rest_is_not_for_him(
    bus: Bus, path: str, published: list[str], shown: list[str], later: str | None
) -> None:
    first = bus.last
    for kind in published:
        bus.publish(kind, "x")
    last = bus.last
    if later:
        bus.publish(later, "came after one asked")
    async with asyncio.timeout(10):
        found = [event.id.partition(".")[2] async for event in Client(Path(path)).events(first, last)]
    assert found == shown


async def test_a_look_back_ends_with_what_stands_for_events_that_are_lost(bus: Bus, path: str) -> None:
    first = bus.last
    for _ in range(600):
        bus.publish("for all", "x")
    async with asyncio.timeout(10):
        assert [event.type async for event in Client(Path(path)).events(first, bus.last)] == ["resync"]


async def test_a_reader_far_behind_gets_all_of_it_in_batches() -> None:
    bus = Bus()
    first = bus.last
    for n in range(BATCH * 2 + 10):
        bus.publish("n", str(n))
    sizes, seen = [], []
    async with asyncio.timeout(5):
        async for batch in bus.follow(first, idle_s=0.01):
            if not batch:
                break
            sizes.append(len(batch))
            seen += [event.object for event in batch]
    assert sizes == [BATCH, BATCH, 10] and seen == [str(n) for n in range(BATCH * 2 + 10)]
