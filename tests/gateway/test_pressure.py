"""Clients and engines that are slower than the other side: memory stays bounded, and nothing waits for ever."""

import asyncio
import hashlib
import json
import resource
import socket

import psutil
import pytest

from core.gateway import wire

pytestmark = pytest.mark.xdist_group("measures")
ASK = {"model": "chat", "stream": True}
MIB = 1 << 20


def request(fields: dict, path: str = "/v1/chat/completions") -> bytes:
    body = json.dumps(fields).encode()
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def test_a_client_that_reads_slowly_pauses_the_engine(gateway, stub):
    await gateway.route(stub)
    await gateway.post(ASK)
    before = gateway.rss()
    stub.flood = 4000  # 64 MB
    reader, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(30):
        await stub.stalled.wait()
        assert stub.sent < 400
        assert gateway.rss() - before < 16 * MIB
        got, end = 0, b""
        while not end.endswith(b"\r\n0\r\n\r\n"):
            piece = await reader.read(MIB)
            got, end = got + len(piece), (end + piece)[-16:]
            assert piece
    assert stub.sent == 4000 and got > 60_000_000
    assert gateway.rss() - before < 16 * MIB
    writer.close()


async def test_a_client_that_takes_nothing_is_cut_and_its_slot_freed(gateway, stub):
    await gateway.route(stub, idle_timeout_s=1)
    stub.flood = 4000
    _, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(20):
        line = await gateway.line()
        assert (line.outcome, line.status) == ("client-gone", 200)
        stub.flood = 0
        assert b"[DONE]" in await gateway.post(ASK)
    writer.close()


async def test_a_client_that_goes_while_its_engine_is_paused_frees_its_slot(gateway, stub):
    await gateway.route(stub)
    stub.flood = 4000
    _, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(30):
        await stub.stalled.wait()
        writer.transport.abort()
        assert (await gateway.line()).outcome == "client-gone"
        stub.flood = 0
        assert b"[DONE]" in await gateway.post(ASK)


async def test_a_client_that_says_it_sends_no_more_has_gone(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
        writer.write_eof()
        await stub.gone.wait()
    assert (await gateway.line()).outcome == "client-gone"
    writer.close()


async def test_a_turn_whose_daemon_takes_nothing_goes_on_without_it(gateway, stub):
    await gateway.route(stub, idle_timeout_s=1)
    stub.flood = 40  # 640 kB: less than a turn may hold, more than what the sockets hold
    body = json.dumps(ASK).encode()
    _, writer = await gateway.open()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Corral-Turn: t1\r\nX-Corral-Actor: 77:ann\r\n"
    writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
    async with asyncio.timeout(20):
        assert (await gateway.line()).outcome == "ok"
        got = await gateway.raw(b"GET /corral/turns/t1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert got.count(b"data: ") == 40
    writer.close()


async def test_answers_to_requests_sent_ahead_wait_until_they_are_read(gateway, stub):
    await gateway.route(stub, slots=2)
    stub.size = 150_000  # each answer comes in one read, before anybody can pause it
    reader, writer = await gateway.open()
    writer.write(request({"model": "chat"}) * 100)
    for _ in range(100):
        await gateway.post(ASK)
    assert sum(b"stream" not in body for body in stub.bodies) < 10  # the few that fit into the sockets
    answers = 0
    async with asyncio.timeout(30):
        while answers < 100:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
            answers += 1
    writer.close()


async def test_more_than_64_kib_sent_ahead_closes_the_connection(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
        writer.write(b"a" * 60_000)
        assert b'"chat"' in await gateway.raw(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert not stub.gone.is_set()
        writer.write(b"a" * 10_000)
        await stub.gone.wait()
        assert not (await reader.read()).endswith(b"0\r\n\r\n")
    assert (await gateway.line()).outcome == "client-gone"
    writer.close()


async def test_a_large_body_arrives_whole_and_is_not_kept(gateway, stub):
    await gateway.route(stub)
    await gateway.post({"model": "chat"})
    before = gateway.rss()
    text = "a" * (15 * MIB)
    for _ in range(4):
        assert b"200 OK" in await gateway.post({"model": "chat", "prompt": text})
    assert json.loads(stub.bodies[-1])["prompt"] == text
    assert gateway.rss() - before < 48 * MIB


async def test_a_chunked_body_that_grows_too_long_is_refused(gateway, stub):
    await gateway.route(stub, body_bytes=MIB)
    head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await gateway.raw(head + (b"%x\r\n" % (2 * MIB)) + b"a" * (2 * MIB))
    assert answer.startswith(b"HTTP/1.1 413") and b"1048576 bytes" in answer
    assert stub.bodies == []


async def test_a_connection_on_which_nothing_is_asked_is_closed_and_no_other(gateway, stub):
    await gateway.route(stub, idle_timeout_s=1.5, request_timeout_s=1.5, slots=2)
    stub.hold.clear()
    busy, asking = await gateway.open()
    asking.write(request(ASK))
    silent, waiting = await gateway.open()
    used, using = await gateway.open()
    async with asyncio.timeout(20):
        await busy.readuntil(b'"0"')
        closed = asyncio.create_task(silent.read())
        while not closed.done():
            using.write(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
            await used.readuntil(b"]}")
            await asyncio.wait({closed}, timeout=0.2)
        assert closed.result() == b""
        assert (await busy.read()).endswith(b"0\r\n\r\n")  # its stream says nothing: another time-out, which is told
    for writer in (asking, using, waiting):
        writer.close()


async def test_a_client_that_never_takes_its_last_answer_is_cut(gateway, stub):
    await gateway.route(stub, idle_timeout_s=1)
    stub.size = 150_000  # each answer comes in one read, before anybody can pause it
    _, writer = await gateway.open()
    writer.transport.pause_reading()
    writer.write(request({"model": "chat"}) * 10)
    async with asyncio.timeout(20):
        assert (await gateway.line()).outcome == "ok"
        await gateway.told(lambda live: live.connections == 0)
    assert 0 < len(stub.bodies) < 10
    writer.close()


async def test_a_key_has_so_many_connections_and_no_more(gateway, stub):
    secret = "corral_test"
    keys = [
        wire.Key(id=name, name=name, hash=hashlib.sha256(text.encode()).hexdigest(), owner="ann", uid=4242)
        for name, text in (("one", secret), ("two", "corral_other"))
    ]
    await gateway.route(stub, keys=keys, connections_per_key=2)

    def asks(text: str) -> bytes:
        return f"GET /v1/models HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {text}\r\n\r\n".encode()

    async def on(pair, text: str) -> bytes:
        reader, writer = pair
        writer.write(asks(text))
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
            return head + await reader.readexactly(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))

    first, second, third = [await gateway.open() for _ in range(3)]
    for _ in range(3):  # the same connection counts once
        assert b" 200 " in await on(first, secret)
    assert b" 200 " in await on(second, secret)
    assert b" 200 " in await on(third, "corral_other"), "each key has its own"
    refused = await on(third, secret)
    assert b" 429 " in refused and b"too_many_connections" in refused and b"Retry-After: 1\r\n" in refused
    assert b" 200 " in await on(first, "corral_other"), "it is the other key's connection now"
    fourth = await gateway.open()
    assert b" 200 " in await on(fourth, secret)
    second[1].close()
    more = []
    async with asyncio.timeout(10):
        while not more or b" 200 " not in await on(more[-1], secret):
            more.append(await gateway.open())
    for each in (first, third, fourth, *more):
        each[1].close()


async def test_an_address_that_is_full_gives_an_idle_connection_for_a_new_one(gateway, stub):
    secret = "corral_right"
    key = wire.Key(id="k", name="ci", owner="a", uid=7, hash=hashlib.sha256(secret.encode()).hexdigest())
    live = await gateway.route(
        stub, listen=f"127.0.0.1:{free_port()}", connections_per_address=4, keys=[key], slots=8
    )  # fmt: skip
    at = int(live.listens.rpartition(":")[2])
    asks = f"Authorization: Bearer {secret}\r\n"

    async def connect(*, source: str = "127.0.0.1"):
        return await asyncio.open_connection("127.0.0.1", at, local_addr=(source, 0))

    async def ask(pair, fields=None) -> bytes:
        body = json.dumps(fields).encode() if fields else b""
        head = f"{'POST /v1/chat/completions' if fields else 'GET /v1/models'} HTTP/1.1\r\nHost: x\r\n{asks}"
        pair[1].write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(10):
            return await pair[0].read(65536)

    async def ended(pair) -> bool:
        async with asyncio.timeout(10):
            try:
                return await pair[0].read(65536) == b""
            except ConnectionError:
                return True

    kept = await connect()
    assert b" 200 " in await ask(kept)
    strangers = [await connect() for _ in range(3)]
    strangers[1][1].write(b"GET /heal")  # has asked nothing yet either
    new = [await connect() for _ in range(3)]
    for pair in new:
        assert b" 200 " in await ask(pair)
    assert all([await ended(pair) for pair in strangers])
    assert b" 200 " in await ask(kept), "whoever has asked with a key goes after those who have not"
    other = await connect(source="127.0.0.2")
    assert b" 200 " in await ask(other), "another address has its own"

    stub.hold.clear()
    streams = [kept, *new[1:]]
    for pair in streams:
        assert b" 200 " in await ask(pair, ASK)
    fifth = await connect()
    assert b" 200 " in await ask(fifth, ASK)
    assert await ended(new[0]), "of those that have asked one goes that is idle"
    sixth = await connect()
    async with asyncio.timeout(10):
        refused = await sixth[0].read()
    assert refused.startswith(b"HTTP/1.1 429 ") and b"too_many_connections" in refused
    live = await gateway.told(lambda live: live.refused)
    assert (live.evicted, live.refused, live.crowded) == (4, 1, "127.0.0.1")
    stub.hold.set()
    for pair in (*streams, fifth):
        end = b""
        async with asyncio.timeout(10):
            while not end.endswith(b"\r\n0\r\n\r\n"):
                end += await pair[0].read(65536)
    assert b" 200 " in await ask(fifth)
    for _, writer in (*streams, *strangers, *new, other, fifth, sixth):
        writer.close()


async def test_a_first_byte_that_does_not_come_is_timed_out(gateway, stub):
    await gateway.route(stub, first_byte_timeout_s=0.5)
    stub.silent = True
    answer = await gateway.post(ASK)
    assert answer.startswith(b"HTTP/1.1 504") and b"the first byte did not come" in answer
    async with asyncio.timeout(10):
        await stub.gone.wait()
        line = await gateway.line()
    assert (line.outcome, line.status, line.replica) == ("timeout", 504, "chat/0")
    stub.silent = False
    assert b"[DONE]" in await gateway.post(ASK)


async def test_a_stream_that_stops_is_ended_with_an_error_event(gateway, stub):
    await gateway.route(stub, idle_timeout_s=0.5)
    stub.hold.clear()
    answer = await gateway.post(ASK)
    assert answer.startswith(b"HTTP/1.1 200") and b'"0"' in answer
    assert b'data: {"error"' in answer and b'"timeout"' in answer and answer.endswith(b"0\r\n\r\n")
    async with asyncio.timeout(10):
        await stub.gone.wait()
        line = await gateway.line()
    assert (line.outcome, line.status, line.estimated) == ("timeout", 200, True)
    assert isinstance(await gateway.told(lambda live: live.in_flight == 0), wire.Live)


async def test_it_takes_as_many_descriptors_as_it_may_have(gateway, stub):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gateway.hang_up()
    gateway.stop()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    try:
        gateway.start(fork=False)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await gateway.connect()
    assert psutil.Process(gateway.process.pid).rlimit(psutil.RLIMIT_NOFILE) == (hard, hard)
