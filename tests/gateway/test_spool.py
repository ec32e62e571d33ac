"""A usage spool that is full: requests are refused, or served uncounted by setting, until the daemon has committed."""

import asyncio
import fcntl
import os
import threading
import time

import msgspec
import pytest

from core.gateway import wire
from core.gateway.control import LINE_LIMIT, Control
from core.gateway.core import Core
from core.gateway.doors import Doors
from core.gateway.routes import Table
from core.gateway.usage import BATCH_LINES, GATEWAY_DIED, SPOOL_BYTES, Spool

ASK = {"model": "chat", "stream": True}


def batch(n: int, bytes: int) -> wire.UsageBatch:
    line = wire.UsageLine(
        id="0" * 16, time=time.time(), uid=1, deployment="chat", model="m" * bytes, replica="chat/0", launch="l",
        path="/v1/completions", status=200, outcome="ok",
    )  # fmt: skip
    return wire.UsageBatch(launch="launch0000", n=n, lines=(line,))


@pytest.fixture
def full(tmp_path):
    """What a gateway before left behind: as many bytes as the spool holds."""
    (tmp_path / "spool").mkdir()
    count = SPOOL_BYTES // (1 << 20) + 1
    lines = [msgspec.json.encode(batch(n, 1 << 20)) + b"\n" for n in range(1, count + 1)]
    (tmp_path / "spool" / "launch0000.jsonl").write_bytes(b"".join(lines))
    return count


@pytest.fixture
async def filled(full, gateway):
    """A gateway whose spool is full."""
    return gateway


async def acknowledge(gateway, count: int) -> None:
    while len(gateway.usage) < count:
        await gateway.expect(wire.UsageBatch)
    gateway.send(wire.UsageAck(launch="launch0000", n=count))
    await gateway.told(lambda live: live.spooled < count)  # what was refused meanwhile has a line too


async def test_requests_are_refused_until_there_is_room(filled, stub, full):
    await filled.route(stub)
    answer = await filled.post(ASK)
    assert answer.startswith(b"HTTP/1.1 503") and b"spool_full" in answer and stub.bodies == []
    assert b'"chat"' in await filled.raw(b"GET /v1/models HTTP/1.0\r\n\r\n")
    await acknowledge(filled, full)
    assert b"[DONE]" in await filled.post(ASK)
    assert (await filled.line(lambda line: line.model == "m")).outcome == "ok"
    refused = await filled.line(lambda line: line.outcome == "refused")
    assert (refused.status, refused.deployment, refused.requests) == (503, "chat", 1)


async def test_requests_are_served_uncounted_by_setting(filled, stub, full):
    await filled.route(stub, serve_uncounted=True)
    assert b"[DONE]" in await filled.post(ASK)
    await acknowledge(filled, full)
    assert b"[DONE]" in await filled.post({**ASK, "n": 1})
    await filled.line(lambda line: line.model == "m")
    assert [line.model for each in filled.usage for line in each.lines].count("m") == 1


def test_many_lines_become_batches_that_fit_on_the_wire(tmp_path):
    spool = Spool(tmp_path, "launch0001")
    line = batch(1, 10).lines[0]
    for _ in range(2 * BATCH_LINES + 1):
        spool.add(line)
    assert spool.flush() and not spool.flush()
    found = [msgspec.json.decode(data, type=wire.UsageBatch) for _, _, data in spool.batches()]
    assert [(each.n, len(each.lines)) for each in found] == [(1, BATCH_LINES), (2, BATCH_LINES), (3, 1)]
    assert max(len(data) for _, _, data in spool.batches()) < LINE_LIMIT / 4
    spool.close()


async def test_a_disk_that_does_not_sync_keeps_no_line_from_being_written(tmp_path, monkeypatch):
    """What was written outlives a kill -9, so that it costs the lines of the last second and no more."""
    synced = threading.Event()
    spool = Spool(tmp_path / "spool", "launch0001")
    monkeypatch.setattr(Spool, "sync", lambda self: synced.wait(20))
    core = Core(Table(tmp_path / "snapshot.json"), spool, owner=os.getuid())
    control = Control(core, hand_over=None, doors=Doors(tmp_path, lambda: None))
    running = asyncio.create_task(control.run())
    try:
        async with asyncio.timeout(10):
            for n in (1, 2, 3):
                spool.add(batch(1, 1).lines[0])
                while spool.n < n:
                    await asyncio.sleep(0.02)
    finally:
        synced.set()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len((tmp_path / "spool" / "launch0001.jsonl").read_bytes().splitlines()) == 3


def died(id: str, outcome: str, answer: int) -> wire.UsageLine:
    return wire.UsageLine(
        id=id, time=1.0, uid=7, deployment="d", model="m", replica="d/0", launch="l", path="/", status=200,
        outcome=outcome, answer_tokens=answer,
    )  # fmt: skip


@pytest.mark.parametrize("next_launch", ["one", "two"])
def test_what_ran_when_a_gateway_was_killed_has_a_line_with_what_it_had_used(tmp_path, next_launch: str) -> None:
    killed = Spool(tmp_path, "one")
    killed.running([died("ended", GATEWAY_DIED, 3), died("runs", GATEWAY_DIED, 5)])
    killed.add(died("ended", "ok", 4))
    killed.flush()
    os.close(killed._out)  # as a kill does
    spool = Spool(tmp_path, next_launch)
    spool.adopt()
    batches = [msgspec.json.decode(data, type=wire.UsageBatch) for _, _, data in spool.batches()]
    lines = [(line.id, line.outcome, line.answer_tokens) for each in batches for line in each.lines]
    assert sorted(lines) == [("ended", "ok", 4), ("runs", "gateway-died", 5)]
    assert not [*tmp_path.glob("*.running")]
    spool.running([died("next", GATEWAY_DIED, 1)])
    assert [*tmp_path.glob("*.running")] and os.stat(tmp_path / f"{next_launch}.running").st_mode & 0o77 == 0
    spool.close()
    assert not [*tmp_path.glob("*.running")]


def test_a_gateway_that_is_taken_for_a_dead_one_as_it_starts_has_its_file(tmp_path, monkeypatch):
    """The one that serves looked between its making the file and its lock: the new one ended, or wrote to no file."""
    serving, real, looked = Spool(tmp_path, "launch0001"), fcntl.flock, []

    def flock(descriptor: int, how: int) -> None:
        if not looked:
            looked.append(descriptor)
            serving.adopt()
            assert not (tmp_path / "launch0002.jsonl").exists()
        real(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    new = Spool(tmp_path, "launch0002")
    serving.adopt()
    assert looked and (tmp_path / "launch0002.jsonl").exists()
    new.close()
    serving.close()
