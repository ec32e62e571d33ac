"""Who asks while a replica is on its way waits for it in the queue, for no longer than for a slot."""

import asyncio

import pytest

ASK = {"model": "chat", "stream": True}


@pytest.fixture
async def waiting(gateway, stub):
    """Two that ask while no replica is there and one is expected."""
    await gateway.route()
    await gateway.change(expected=True, state="pending")
    asked = [asyncio.create_task(gateway.post(ASK)) for _ in range(2)]
    await gateway.told(lambda live: live.queued == {"chat": 2})
    return asked


async def test_they_are_answered_when_it_is_ready(gateway, stub, waiting):
    await gateway.route(stub)
    for asked in waiting:
        assert (await asked).startswith(b"HTTP/1.1 200 OK")


async def test_they_are_told_when_it_is_given_up(gateway, waiting):
    await gateway.change(expected=False, state="failed")
    for asked in waiting:
        answer = await asked
        assert answer.startswith(b"HTTP/1.1 503") and b"deployment chat is not ready: failed" in answer


async def test_they_do_not_wait_for_ever_and_the_words_blame_the_replica(gateway):
    await gateway.route(queue_timeout_s=0.2)
    await gateway.change(expected=True, state="pending")
    answer = await gateway.post(ASK)
    assert answer.startswith(b"HTTP/1.1 503") and b"chat was not ready for 0.2 s" in answer


async def test_where_none_is_expected_it_is_told_at_once(gateway):
    await gateway.route()
    await gateway.change(state="stopped")
    assert b"deployment chat is not ready: stopped" in await gateway.post(ASK)


async def test_who_meets_a_dead_replica_before_it_is_withdrawn_waits_for_the_one_on_its_way(gateway, stubs):
    """Not 502 in the second that the daemon takes to see the death."""
    dead, coming, _ = stubs
    dead.path.unlink()
    await gateway.route(dead)
    asked = asyncio.create_task(gateway.post(ASK))
    await gateway.told(lambda live: live.replicas[0].errors > 0)
    await gateway.change(expected=True, replicas=())
    await gateway.told(lambda live: live.queued == {"chat": 1})
    await gateway.route(coming)
    assert (await asked).startswith(b"HTTP/1.1 200 OK") and len(coming.bodies) == 1


async def test_a_request_that_ends_replicas_before_they_answer_ends_no_third(gateway, stubs):
    for stub in stubs:
        stub.drops = True
    await gateway.route(*stubs)
    assert (await gateway.post(ASK)).startswith(b"HTTP/1.1 502")
    assert sum(len(stub.bodies) for stub in stubs) == 2


async def test_what_waits_for_a_slot_stays_in_the_queue_while_its_replica_is_restarted(gateway, stub):
    await gateway.route(stub)
    stub.hold.clear()
    first = asyncio.create_task(gateway.post(ASK))
    await gateway.told(lambda live: live.in_flight == 1)
    second = asyncio.create_task(gateway.post(ASK))
    await gateway.told(lambda live: live.queued == {"chat": 1})
    await gateway.change(expected=True, replicas=())
    stub.hold.set()
    assert (await first).startswith(b"HTTP/1.1 200 OK")
    await gateway.route(stub)
    assert (await second).startswith(b"HTTP/1.1 200 OK")
