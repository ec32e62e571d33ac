"""A conversation goes back to the replica that had it, unless that is busier."""

from __future__ import annotations

import asyncio
import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gateway.sessions import MOST, Sessions, session

TURNS = [
    {"role": "system", "content": 'You are a "llama", {not} an \\"assistant\\".'},
    {"role": "user", "content": "Who are you?"},
    {"role": "assistant", "content": "A llama."},
    {"role": "user", "content": "Why?"},
]


def body(*turns: dict, **more) -> bytes:
    return json.dumps({"model": "chat", "messages": turns, "stream": True, **more}).encode()


def test_all_turns_of_a_conversation_are_one_session_and_another_is_another():
    first, second = session("k1", body(*TURNS[:2])), session("k1", body(*TURNS))
    assert first == second != 0
    other = {"role": "user", "content": "Who are we?"}
    assert session("k1", body(TURNS[0], other)) != first
    assert session("k2", body(*TURNS)) != first


@given(st.lists(st.text(max_size=30), min_size=2, max_size=9))
def test_whatever_is_said_a_conversation_stays_one_session(texts):
    turns = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    found = {session(1, body(*turns[: n + 1])) for n in range(0, len(turns), 2)}
    assert len(found) == 1


def test_a_prompt_cache_key_decides():
    assert session(1, body(*TURNS, prompt_cache_key="x")) == session(1, body(TURNS[1], prompt_cache_key="x"))
    assert session(1, body(*TURNS, prompt_cache_key="x")) != session(1, body(*TURNS, prompt_cache_key="y"))
    assert session(1, body(*TURNS, prompt_cache_key=None)) == session(1, body(*TURNS))


@pytest.mark.parametrize("field", ["prompt", "input"])
def test_a_prompt_without_turns_is_known_by_its_head(field):
    head = "x" * 300
    assert session(1, json.dumps({field: head}).encode()) == session(1, json.dumps({field: head + "y"}).encode())
    assert session(1, json.dumps({field: "short"}).encode()) == 0


def test_what_tells_nothing_is_no_session():
    assert [session(1, each) for each in (b"{}", b"[]", b"{", b'{"messages":3}', b'{"prompt":[1,2]}')] == [0] * 5


def test_the_ones_not_heard_of_for_longest_are_forgotten_and_so_are_replicas_that_went():
    sessions: Sessions[str] = Sessions()
    for n in range(1, MOST + 1):
        sessions.put(n, "a")
    sessions.put(1, "b")
    sessions.put(MOST + 1, "b")
    assert len(sessions) == MOST and sessions.get(2) is None and sessions.get(1) == "b"
    sessions.keep(["b"])
    assert len(sessions) == 2 and sessions.get(3) is None


def asked(stubs) -> list[int]:
    return [len(stub.bodies) for stub in stubs]


def turn(n: int, **more) -> dict:
    return {"model": "chat", "messages": [{"role": "user", "content": f"question {n}"}], **more}


async def test_a_conversation_goes_back_to_the_replica_that_had_it(gateway, stubs):
    await gateway.route(*stubs, slots=2)
    for stub in stubs:
        stub.hold.clear()
    async with held(gateway, stubs, turn(1)), held(gateway, stubs, turn(2)), held(gateway, stubs, turn(3)):
        assert asked(stubs) == [1, 1, 1]
    for stub in stubs:
        stub.hold.set()
    for n in (3, 2, 3, 1, 3):
        assert b"200 OK" in await gateway.post(turn(n))
    assert asked(stubs) == [2, 2, 4]


async def test_a_replica_that_has_two_requests_more_is_left(gateway, stubs):
    first, second, _ = stubs
    await gateway.route(first, second, slots=8)
    assert b"200 OK" in await gateway.post(turn(1))
    first.hold.clear()
    async with held(gateway, stubs, turn(1, stream=True)):
        assert b"200 OK" in await gateway.post(turn(1))  # one more there: it stays
        assert (len(first.bodies), len(second.bodies)) == (3, 0)
        async with held(gateway, stubs, turn(1, stream=True)):
            assert b"200 OK" in await gateway.post(turn(1))
            assert (len(first.bodies), len(second.bodies)) == (4, 1)


async def test_a_replica_without_a_free_slot_is_not_waited_for(gateway, stubs):
    first, second, _ = stubs
    await gateway.route(first, second, slots=1)
    assert b"200 OK" in await gateway.post(turn(1))
    first.hold.clear()
    async with held(gateway, stubs, turn(1, stream=True)):
        assert b"200 OK" in await gateway.post(turn(1))
        assert (len(first.bodies), len(second.bodies)) == (2, 1)
    first.hold.set()


@contextlib.asynccontextmanager
async def held(gateway, stubs, fields):
    """A stream after its first event, closed at the end."""
    data = json.dumps({**fields, "stream": True}).encode()
    reader, writer = await gateway.open()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(data)
    writer.write(head + data)
    try:
        async with asyncio.timeout(10):
            await reader.readuntil(b'"0"')
        yield
    finally:
        writer.close()
