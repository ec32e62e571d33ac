"""Slow and half-open clients by the thousand: they cost a bounded amount, stall nobody, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from pathlib import Path

import psutil
import pytest
from certs import KEY, issued, port, trusting
from fuzzing import AUTH, CHAT, SECRET

from core.listen import Listen

pytestmark = pytest.mark.xdist_group("measures")
MIB = 1 << 20
HELLO = bytes.fromhex("16030100c8010000c40303")
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n" + AUTH.replace(SECRET.encode(), b"corral_test")
STREAM = b'{"model":"chat","stream":true}'
BEGUN = {
    "nothing": b"",
    "a byte": b"P",
    "half a head": HEAD + b"A: ",
    "half a body": HEAD + b"Content-Length: 100000\r\n\r\n{",
    "half a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n{",
}
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(CHAT), CHAT)


@pytest.fixture
def descriptors():
    """Thousands of connections need a descriptor each, here too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8192:
        pytest.skip(f"this process may have {hard} descriptors")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 8192), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def connect(at: int, source: str) -> socket.socket:
    made = socket.socket()
    made.bind((source, 0))
    made.connect(("127.0.0.1", at))
    return made


async def served(at: int, context=None) -> None:
    """A client as it should be gets its answer."""
    name = "localhost" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", at, ssl=context, server_hostname=name)
    async with asyncio.timeout(20):
        writer.write(WHOLE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.transport.abort()


@pytest.mark.timeout(240)
async def test_2000_that_begin_and_do_not_end_cost_little_and_stall_nobody(gateway, stub, tmp_path, descriptors):
    files, _ = issued(tmp_path)
    doors = (Listen(f"127.0.0.1:{port()}"), Listen(f"127.0.0.1:{port()}", True))
    how = {"keys": [KEY], "doors": doors, "files": files, "slots": 4}
    live = await gateway.route(stub, **how)
    plain, tls = (int(each.url.rpartition(":")[2]) for each in live.doors)
    context = trusting(files)
    await served(plain)
    await served(tls, context)
    process = psutil.Process(gateway.process.pid)
    before, open_files = gateway.rss(), process.num_fds()
    ends: list[socket.socket] = []
    for number in range(1000):  # 250 from an address
        end = connect(plain, f"127.0.1.{number // 250 + 1}")
        end.send(list(BEGUN.values())[number % len(BEGUN)])
        ends.append(end)
        if number % 100 == 0:
            await served(plain)
    for number in range(1000):  # 50 from an address: more would end the first
        end = connect(tls, f"127.0.2.{number // 50 + 1}")
        end.send(HELLO[: number % len(HELLO)])
        ends.append(end)
        if number % 100 == 0:
            await served(tls, context)
    await served(plain)
    await served(tls, context)
    assert process.num_fds() - open_files > 1900, "they are all there"
    assert gateway.rss() - before < 120 * MIB
    await gateway.route(stub, **how, request_timeout_s=1, idle_timeout_s=1)
    async with asyncio.timeout(60):  # nobody has to go by himself
        while process.num_fds() > open_files + 8:
            await served(plain)
            await asyncio.sleep(0.2)
    for end in ends:
        end.close()


async def test_handshakes_that_are_not_done_shut_nobody_out_of_their_address(gateway, stub, tmp_path, descriptors):
    files, _ = issued(tmp_path)
    live = await gateway.route(stub, keys=[KEY], doors=(Listen(f"127.0.0.1:{port()}", True),), files=files)
    tls, context = int(live.doors[0].url.rpartition(":")[2]), trusting(files)
    await served(tls, context)
    ends = []
    for _ in range(200):
        ends.append(connect(tls, "127.0.0.1"))
        await asyncio.sleep(0)
    await served(tls, context)
    for end in ends:
        end.close()


@pytest.mark.timeout(240)
async def test_500_that_read_nothing_keep_a_fixed_buffer_each(gateway, stub, tmp_path, descriptors):
    """Half of them over TLS; each has an answer of which it takes nothing."""
    files, _ = issued(tmp_path)
    doors = (Listen(f"127.0.0.1:{port()}"), Listen(f"127.0.0.1:{port()}", True))
    live = await gateway.route(
        stub, keys=[KEY], doors=doors, files=files, slots=1000, connections_per_key=1000, idle_timeout_s=60
    )
    plain, tls = (int(each.url.rpartition(":")[2]) for each in live.doors)
    context = trusting(files)
    await served(plain)
    before = gateway.rss()
    stub.flood = 2000  # 32 MB each
    writers = []
    for number in range(500):
        secure = number % 2 == 1
        _, writer = await asyncio.open_connection(
            "127.0.0.1", tls if secure else plain, ssl=context if secure else None, limit=1 << 12,
            server_hostname="localhost" if secure else None, local_addr=(f"127.0.3.{number % 4 + 1}", 0),
        )  # fmt: skip
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(STREAM), STREAM))
        writers.append(writer)
    async with asyncio.timeout(120):
        told = await gateway.told(lambda live: live.in_flight == 500)
        sent = -1
        while sent != stub.sent:  # until none of them moves
            sent = stub.sent
            await gateway.told(lambda live: True)
    assert told.connections >= 500
    # 64 KiB and what one read of the engine's brings beyond them, up to 256 KiB; over TLS once more, sealed.
    assert gateway.rss() - before < 336 * MIB  # with 32 KiB for what a connection is of itself
    stub.flood = 0
    await served(plain)
    for writer in writers:
        writer.transport.abort()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(30):
            await gateway.told(lambda live: live.in_flight == 0)
    await served(tls, context)
    assert "Traceback" not in Path(gateway.log).read_text()
