"""A chat turn that is followed, stopped and deleted."""

import asyncio
import json

import pytest

ASK = {"model": "chat", "stream": True}


async def begin(gateway, turn: str, headers: str = "X-Corral-Actor: 77:ann\r\n"):
    """A turn after its first event."""
    body = json.dumps(ASK).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX-Corral-Turn: {turn}\r\n{headers}"
    reader, writer = await gateway.open()
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
    return reader, writer


async def turn(gateway, method: str, id: str) -> bytes:
    return await gateway.raw(f"{method} /corral/turns/{id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())


@pytest.mark.parametrize("gone", [False, True], ids=["while it is followed", "after its client went"])
async def test_deleting_a_turn_stops_it_and_frees_its_slot(gateway, stub, gone):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await begin(gateway, "t1")
    if gone:
        writer.close()
        await gateway.told(lambda live: live.connections == 0)
    answer = await turn(gateway, "DELETE", "t1")
    assert answer.startswith(b"HTTP/1.1 200") and answer.endswith(b"{}")
    async with asyncio.timeout(10):
        await stub.gone.wait()
        if not gone:
            rest = await reader.readuntil(b"0\r\n\r\n")
            assert b'data: {"error"' in rest and b"stopped" in rest
    line = await gateway.line()
    assert (line.turn, line.uid, line.outcome) == ("t1", 77, "client-gone")
    kept = await turn(gateway, "GET", "t1")
    assert b'"0"' in kept and b"stopped" in kept and kept.endswith(b"0\r\n\r\n")
    stub.hold.set()
    assert b"[DONE]" in await gateway.post(ASK)
    writer.close()


async def test_a_turn_in_the_queue_can_be_deleted(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    _, writer = await begin(gateway, "t1")
    waits = asyncio.create_task(gateway.post(ASK, "X-Corral-Turn: t2\r\n"))
    assert (await gateway.told(lambda live: bool(live.queued))).waiting == ("t2",)
    assert b"200 OK" in await turn(gateway, "DELETE", "t2")
    assert (await waits).startswith(b"HTTP/1.1 503")
    assert (await gateway.told(lambda live: not live.queued)).in_flight == 1
    writer.close()


async def test_unknown_and_repeated_turns_are_refused(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    _, writer = await begin(gateway, "t1")
    for method in ("GET", "DELETE"):
        assert (await turn(gateway, method, "t9")).startswith(b"HTTP/1.1 404")
    assert (await turn(gateway, "PUT", "t1")).startswith(b"HTTP/1.1 405")
    assert (await gateway.post(ASK, "X-Corral-Turn: t1\r\n")).startswith(b"HTTP/1.1 409")
    assert len(stub.bodies) == 1
    writer.close()


async def test_what_is_said_for_the_gateway_is_not_forwarded(gateway, stub):
    await gateway.route(stub)
    _, writer = await begin(gateway, "t1", "X-Corral-Actor: 77:ann\r\nCookie: a=b\r\n")
    head = stub.heads[0].lower()
    assert b"x-corral" not in head and b"cookie" not in head
    writer.close()
