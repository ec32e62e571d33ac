"""Several replicas: the least busy one, one that is dead, one that is withdrawn, and what the daemon hears of them."""

import asyncio
import json

import pytest

from core.gateway import wire
from core.gateway.upstream import Pool

ASK = {"model": "chat", "stream": True}


def asked(stubs) -> list[int]:
    return [len(stub.bodies) for stub in stubs]


async def streams(gateway, count: int) -> list:
    """So many streams, each after its first event."""
    body = json.dumps(ASK).encode()
    opened = []
    for _ in range(count):
        reader, writer = await gateway.open()
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        async with asyncio.timeout(10):
            await reader.readuntil(b'"0"')
        opened.append((reader, writer))
    return opened


async def test_the_least_busy_replica_is_asked(gateway, stubs):
    await gateway.route(*stubs, slots=3)
    for stub in stubs:
        stub.hold.clear()
    opened = await streams(gateway, 3)
    assert asked(stubs) == [1, 1, 1]
    opened += await streams(gateway, 3)
    assert asked(stubs) == [2, 2, 2]
    async with asyncio.timeout(10):
        opened[1][1].close()
        await stubs[1].gone.wait()
    await gateway.told(lambda live: live.in_flight == 5)
    opened += await streams(gateway, 1)
    assert asked(stubs) == [2, 3, 2]
    for _, writer in opened:
        writer.close()


@pytest.mark.parametrize("place", [0, 1])
async def test_a_dead_replica_is_passed_over_and_not_asked_again_at_once(gateway, stubs, place):
    dead, busy = stubs[place], stubs[1 - place]
    dead.path.unlink()
    busy.hold.clear()
    await gateway.route(*stubs)
    opened = await streams(gateway, 1)
    for _ in range(20):
        assert b"[DONE]" in await gateway.post(ASK)
    assert (len(busy.bodies), len(stubs[2].bodies)) == (1, 20)
    live = await gateway.told(lambda live: live.requests == 21 and live.in_flight == 1)
    assert 1 <= live.replicas[place].errors < 10
    opened[0][1].close()


async def test_a_request_that_met_a_dead_replica_waits_for_a_busy_one(gateway, stubs):
    dead, busy, _ = stubs
    dead.path.unlink()
    busy.hold.clear()
    await gateway.route(dead, busy)
    opened = await streams(gateway, 1)
    waits = asyncio.create_task(gateway.post(ASK))
    await gateway.told(lambda live: live.queued == {"chat": 1})
    busy.hold.set()
    assert b"[DONE]" in await waits
    opened[0][1].close()


async def test_when_no_replica_answers_the_client_is_told(gateway, stubs):
    for stub in stubs:
        stub.path.unlink()
    await gateway.route(*stubs)
    answer = await gateway.post(ASK)
    assert answer.startswith(b"HTTP/1.1 502") and b"does not answer" in answer
    assert (await gateway.line()).outcome == "replica-died"


@pytest.mark.parametrize("before", [0, 1], ids=["new connection", "used connection"])
async def test_what_a_replica_took_and_did_not_begin_to_answer_is_asked_of_another_one(gateway, stubs, before):
    first, second, _ = stubs
    await gateway.route(first, second)
    for _ in range(before):
        assert b"200 OK" in await gateway.post(ASK)
    first.drops = True
    assert b"200 OK" in await gateway.post(ASK)
    assert (len(first.bodies), len(second.bodies)) == (1 + 2 * before, 1)


async def test_a_request_that_ends_the_replicas_it_is_sent_to_on_used_connections_ends_two_at_most(gateway, stubs):
    await gateway.route(*stubs)
    for stub in stubs:
        stub.hold.clear()
    at_once = [asyncio.create_task(gateway.post(ASK)) for _ in stubs]
    await gateway.told(lambda live: live.in_flight == len(stubs))
    for stub in stubs:
        stub.hold.set()
    assert all(b"200 OK" in answer for answer in await asyncio.gather(*at_once))
    for stub in stubs:
        stub.drops = True
        stub.path.unlink()  # as of a replica that the request has ended: nothing new connects
    answer = await gateway.post(ASK)
    assert answer.startswith(b"HTTP/1.1 502") and b"replica_died" in answer
    assert sorted(len(stub.bodies) for stub in stubs) == [1, 2, 2]


async def test_connections_to_an_engine_are_used_again(gateway, stub):
    await gateway.route(stub)
    for fields in [ASK, {"model": "chat"}] * 5:
        assert b"200 OK" in await gateway.post(fields)
    assert len(stub.bodies) == 10 and stub.connections == 1


@pytest.mark.parametrize("fields", [ASK, {"model": "chat"}])
async def test_what_meets_an_engine_that_closes_its_idle_connection_is_asked_again(gateway, stub, fields):
    await gateway.route(stub)
    assert b"200 OK" in await gateway.post(fields)
    stub.slams = 1
    assert b"200 OK" in await gateway.post(fields)
    assert stub.slams == 0 and stub.connections == 2 and len(stub.bodies) == 2
    await gateway.line()
    live = await gateway.told(lambda live: live.requests == 2)
    assert live.replicas[0].errors == 0


async def test_a_connection_is_kept_for_less_time_than_an_engine_keeps_it(stub):
    pool = Pool(f"unix:{stub.path}")
    connection = await pool.connect()
    pool.put(connection)
    assert pool.get(connection.idle_since + 3.4) is connection
    pool.put(connection)
    assert pool.get(connection.idle_since + 3.6) is None and connection.closed
    pool.put(other := await pool.connect())
    other.idle_since -= 3.6
    pool.prune()
    assert other.closed and pool.get(other.idle_since) is None


async def test_an_engine_that_does_not_count_its_streams_is_counted_by_events(gateway, stub):
    await gateway.route(stub)
    await gateway.change(stream_usage=False)
    assert b"[DONE]" in await gateway.post(ASK)
    assert b"stream_options" not in stub.bodies[0]
    line = await gateway.line()
    assert line.estimated and line.answer_tokens == 3 and line.prompt_tokens == 9


async def test_a_withdrawn_replica_gets_nothing_new_and_is_told_of_until_its_last_answer_ends(gateway, stubs):
    first, second, _ = stubs
    await gateway.route(first, second, slots=2)
    first.hold.clear()
    opened = await streams(gateway, 1)
    await gateway.withdraw("chat/0")
    for _ in range(3):
        assert b"[DONE]" in await gateway.post(ASK)
    assert asked(stubs) == [1, 3, 0]
    for _ in range(2):
        live = await gateway.expect(wire.Live)
        assert {each.replica: each.in_flight for each in live.replicas} == {"chat/0": 1, "chat/1": 0}
    first.hold.set()
    async with asyncio.timeout(10):
        assert b"[DONE]" in await opened[0][0].readuntil(b"0\r\n\r\n")
    live = await gateway.told(lambda live: not live.in_flight)
    assert [each.replica for each in live.replicas] == ["chat/1"]
    opened[0][1].close()


async def test_what_a_withdrawn_replica_does_is_told_before_the_acknowledgement(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    opened = await streams(gateway, 1)
    told = await gateway.withdraw("chat/0")
    assert [(each.replica, each.in_flight) for each in told[-1].replicas] == [("chat/0", 1)]
    assert b"503 Service" in await gateway.post(ASK)
    opened[0][1].close()


async def test_a_replica_that_comes_back_still_has_the_slots_that_are_taken(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    opened = await streams(gateway, 1)
    await gateway.withdraw("chat/0")
    await gateway.route(stub)
    waits = asyncio.create_task(gateway.post(ASK))
    await gateway.told(lambda live: live.queued == {"chat": 1} and live.in_flight == 1)
    assert len(stub.bodies) == 1
    stub.hold.set()
    assert b"[DONE]" in await waits
    assert b"[DONE]" in await gateway.post(ASK)
    opened[0][1].close()


async def test_live_figures_say_what_runs_waits_and_failed(gateway, stub):
    await gateway.route(stub, queue=1)
    stub.hold.clear()
    opened = await streams(gateway, 1)
    waits = asyncio.create_task(gateway.post(ASK))
    live = await gateway.told(lambda live: bool(live.queued))
    assert (live.requests, live.in_flight, live.queued, live.connections) == (2, 1, {"chat": 1}, 2)
    replica = live.replicas[0]
    assert (replica.replica, replica.in_flight, replica.requests, replica.errors) == ("chat/0", 1, 1, 0)
    assert replica.ttft_ms is not None and replica.ttft_ms > 0
    stub.die = True
    stub.hold.set()
    async with asyncio.timeout(10):
        await opened[0][0].readuntil(b"0\r\n\r\n")
    opened[0][1].close()
    assert b'"error"' in await waits
    live = await gateway.told(lambda live: live.in_flight == 0 and live.connections == 0 and live.spooled > 0)
    assert (live.requests, live.queued, live.replicas[0].requests) == (2, {}, 2)
    assert live.replicas[0].errors >= 1
    await gateway.line()
    for batch in gateway.usage:
        gateway.send(wire.UsageAck(launch=batch.launch, n=batch.n))
    assert (await gateway.told(lambda live: live.spooled == 0)).requests == 2


async def test_a_replica_is_asked_at_the_address_that_was_looked_at(gateway, stub):
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await gateway.route(stub)
    there = wire.ReplicaRoute(id="chat/0", launch="l", endpoint=f"tcp:far.invalid:{port}", at="127.0.0.1")
    await gateway.change(replicas=(there,))
    assert b" 200 " in await gateway.post({"model": "chat"})
    assert b"\r\nHost: far.invalid:%d\r\n" % port in stub.heads[-1]
    server.close()
