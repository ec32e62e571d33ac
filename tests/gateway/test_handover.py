"""A gateway is replaced by another one: nothing is cut, refused or counted twice."""

import asyncio
import json
import os
import signal

from core.gateway import wire

ASK = {"model": "chat", "stream": True}


def request(fields: dict, headers: str = "") -> bytes:
    body = json.dumps(fields).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def replaced(gateway, second) -> None:
    path = second.folder / f"next-{second.launch}.sock"
    async with asyncio.timeout(10):
        while not path.exists():
            await asyncio.sleep(0.01)
    gateway.send(wire.HandOver(socket=str(path)))
    report = await gateway.expect(wire.Report)
    assert report.ok, report.reason


async def test_a_stream_goes_on_and_new_requests_go_to_the_new_one(gateway, second, stub):
    await gateway.route(stub, slots=2)
    stub.hold.clear()
    reader, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
        idle_reader, idle_writer = await gateway.open()
        await replaced(gateway, second)
        assert await idle_reader.read() == b""  # an idle connection is closed in order
        welcome = await second.connect()
        assert (welcome.launch, welcome.n) == ("launch0002", 1)
        while (live := await second.expect(wire.Live)).in_flight != 1:
            pass
        assert live.replicas[0].in_flight == 1  # the slot that the old one holds is counted
        stub.hold.set()
        rest = await reader.read()
        assert b'"2"' in rest and b"[DONE]" in rest
        assert b"[DONE]" in await second.post(ASK)
        while (await second.expect(wire.Live)).in_flight:
            pass
    await asyncio.to_thread(gateway.process.wait, 10)
    assert gateway.process.returncode == 0
    idle_writer.close()
    writer.close()
    async with asyncio.timeout(10):
        while {batch.launch for batch in second.usage} != {"launch0001", "launch0002"}:
            await second.expect(wire.UsageBatch)
        for batch in second.usage:
            second.send(wire.UsageAck(launch=batch.launch, n=batch.n))
        while (second.folder / "spool/launch0001.jsonl").exists():
            await asyncio.sleep(0.02)


async def test_the_slots_of_the_old_one_are_not_given_out_again(gateway, second, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    writer.write(request(ASK))
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
        await replaced(gateway, second)
        await second.connect()
        while not (await second.expect(wire.Live)).in_flight:
            pass
        waits = asyncio.create_task(second.post(ASK))
        while not (await second.expect(wire.Live)).queued:
            pass
        assert len(stub.bodies) == 1
        stub.hold.set()
        assert b"[DONE]" in await waits
    writer.close()


async def test_a_turn_of_the_old_one_is_followed_through_the_new_one(gateway, second, stub):
    await gateway.route(stub)
    stub.hold.clear()
    reader, writer = await gateway.open()
    writer.write(request(ASK, "X-Corral-Turn: t1\r\nX-Corral-Actor: 77:ann\r\n"))
    async with asyncio.timeout(10):
        await reader.readuntil(b'"0"')
        await replaced(gateway, second)
        writer.close()
        follow = asyncio.create_task(
            second.raw(b"GET /corral/turns/t1?offset=6 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        )
        stub.hold.set()
        got = await follow
        assert b'{"choices"' in got and b"data: {" not in got.split(b"\r\n\r\n", 1)[1][:8] and b"[DONE]" in got
        got = await second.raw(b"GET /corral/turns/t2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"404 Not Found" in got


async def test_a_successor_that_does_not_answer_changes_nothing(gateway, stub, tmp_path):
    await gateway.route(stub)
    gateway.send(wire.HandOver(socket=str(tmp_path / "next-nobody.sock")))
    report = await gateway.expect(wire.Report)
    assert not report.ok and report.reason
    assert b"[DONE]" in await gateway.post(ASK)


async def test_a_second_gateway_that_is_told_to_end_leaves_the_first(gateway, second, stub):
    await gateway.route(stub)
    async with asyncio.timeout(10):
        while not (second.folder / f"next-{second.launch}.sock").exists():
            await asyncio.sleep(0.01)
    await asyncio.to_thread(second.stop)
    assert second.process.returncode == 0
    assert b"[DONE]" in await gateway.post(ASK)
    assert os.listdir(second.folder / "spool")


async def test_settings_that_it_lacks_block_it_after_a_restart_too(gateway, stub):
    await gateway.route(stub)
    gateway.send(
        wire.Snapshot(database="d", epoch=1, n=9, routes=(), allowed=wire.Allowed(uids=(os.getuid(),)),
                      limits=wire.GatewayLimits(), needs=("keys",))
    )  # fmt: skip
    assert "keys" in (await gateway.expect(wire.Refused)).reason
    assert b"503 Service" in await gateway.post(ASK)
    gateway.hang_up()
    gateway.stop(signal.SIGKILL)
    gateway.start()
    await gateway.connect()
    assert b"200 OK" not in await gateway.post(ASK)
