"""Bodies on their way: looked at before they are taken, bounded in all and by caller, and given back."""

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_keyed import ASK, SECRET, bearer, key

from core.gateway import wire
from core.gateway.errors import Refusal
from core.gateway.intake import Intake

MIB = 1 << 20
OTHER = "corral_other"
BOUNDS = {"body_bytes": 4 * MIB, "bodies_bytes": 8 * MIB}


def head(length: int, secret: str = SECRET, more: str = "", path: str = "/v1/chat/completions") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{bearer(secret)}{more}Content-Length: {length}\r\n\r\n".encode()


async def begun(gateway, length: int, secret: str = SECRET, path: str = "/v1/chat/completions"):
    """A request of which only the head has come."""
    reader, writer = await gateway.open()
    writer.write(head(length, secret, path=path))
    return reader, writer


async def answered(reader) -> bytes:
    async with asyncio.timeout(10):
        return await reader.readuntil(b"}}")


async def filled(gateway, length: int, secret: str = SECRET):
    """A request of which all but the last byte is on its way."""
    reader, writer = await begun(gateway, length, secret)
    writer.write(b" " * (length - 1))
    await writer.drain()
    return reader, writer


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ({"rpm": 1}, b"1 requests a minute"),
        ({"daily_tokens": 7}, b"7 tokens a day"),
        ({"hours": "sat 00:00-00:01"}, b"is served at"),
    ],
)
async def test_what_is_used_up_is_refused_before_a_body_is_taken(gateway, stub, limits, says):
    if "hours" not in limits:
        await gateway.route(stub, keys=[key(**limits)])
        assert b" 200 " in await gateway.post(ASK, bearer())
    else:
        await gateway.route(stub, keys=[key(**limits)])
    reader, writer = await begun(gateway, 8 * MIB)
    answer = await answered(reader)
    assert b" 429 " in answer and says in answer and b"Retry-After: " in answer
    line = await gateway.line(lambda line: line.status == 429)
    assert (line.outcome, line.key, line.path) == ("refused", "k1", "/v1/chat/completions")
    writer.close()


async def test_no_body_is_taken_while_as_many_run_as_may(gateway, stub):
    await gateway.route(stub, slots=4, keys=[key(concurrency=1)])
    stub.hold.clear()
    _, runs = await gateway.open()
    body = json.dumps({**ASK, "stream": True}).encode()
    runs.write(head(len(body)) + body)
    await gateway.told(lambda live: live.in_flight == 1)
    reader, writer = await begun(gateway, 8 * MIB)
    assert b"1 requests at once" in await answered(reader)
    stub.hold.set()
    for each in (runs, writer):
        each.close()


async def test_no_body_is_taken_of_a_key_that_may_not_ask(gateway, stub):
    keys = [key(endpoints=("embeddings",)), key(OTHER, id="k2", rules=())]
    await gateway.route(stub, keys=keys)
    for secret, says in ((SECRET, b"may not ask /v1/chat/completions"), (OTHER, b"may use no deployment")):
        reader, writer = await begun(gateway, 8 * MIB, secret)
        answer = await answered(reader)
        assert b" 403 " in answer and says in answer
        writer.close()


async def test_who_expects_a_word_before_the_body_is_told_of_the_limit(gateway, stub):
    await gateway.route(stub, keys=[key(rpm=1)])
    assert b" 200 " in await gateway.post(ASK, bearer())
    reader, writer = await gateway.open()
    writer.write(head(100, more="Expect: 100-continue\r\n"))
    assert (await answered(reader)).startswith(b"HTTP/1.1 429 ")
    writer.close()


async def test_one_caller_leaves_room_for_the_others(gateway, stub):
    await gateway.route(stub, keys=[key(), key(OTHER, id="k2", name="other")], **BOUNDS)
    first, second = [await filled(gateway, 2 * MIB) for _ in range(2)]
    await _settled(gateway)
    third = await begun(gateway, 1 * MIB)
    answer = await answered(third[0])
    assert b" 429 " in answer and b'"too_many_bytes"' in answer and b"4.0 MiB of other request bodies" in answer
    assert b"gateway.bodies_bytes" in answer
    others = await filled(gateway, 2 * MIB, OTHER)
    await _settled(gateway)
    full = await begun(gateway, 3 * MIB, OTHER)
    assert b" 429 " in await answered(full[0])
    others[1].close()
    for reader, writer in (first, second):  # what has room is served
        body = json.dumps(ASK).encode()
        writer.write(b" ")
        assert b" 400 " in await answered(reader), body
    again = await begun(gateway, 3 * MIB)
    await _settled(gateway)
    again[1].write(json.dumps(ASK).encode().rjust(3 * MIB))
    async with asyncio.timeout(10):
        assert b" 200 " in await again[0].readuntil(b"\r\n")
    for _, writer in (first, second, third, full, again):
        writer.close()


async def test_a_body_for_which_all_others_leave_no_room_is_told_so(gateway, stub):
    secrets = [f"corral_{n}" for n in range(4)]
    await gateway.route(stub, keys=[key(each, id=each[-1], name=each[-1]) for each in secrets], **BOUNDS)
    there = [await filled(gateway, 2 * MIB, each) for each in secrets[:3]]
    await _settled(gateway)
    reader, writer = await begun(gateway, 4 * MIB, secrets[3])
    answer = await answered(reader)
    assert b" 503 " in answer and b'"bodies_full"' in answer and b"of 8.0 MiB for all" in answer
    for each in (*there, (reader, writer)):
        each[1].close()


async def test_a_body_in_chunks_is_counted_as_it_comes(gateway, stub):
    await gateway.route(stub, keys=[key()], **BOUNDS)
    there = await filled(gateway, 3 * MIB)
    await _settled(gateway)
    reader, writer = await gateway.open()
    chunk = b"%x\r\n%b\r\n" % (MIB, b" " * MIB)
    writer.write(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked") + chunk * 2)
    assert b'"too_many_bytes"' in await answered(reader)
    there[1].close()
    reader, chunked = await gateway.open()
    body = json.dumps(ASK).encode().rjust(3 * MIB)
    chunked.write(head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked"))
    for at in range(0, len(body), 100_000):
        part = body[at : at + 100_000]
        chunked.write(b"%x\r\n%b\r\n" % (len(part), part))
    chunked.write(b"0\r\n\r\n")
    async with asyncio.timeout(10):
        assert b" 200 " in await reader.readuntil(b"\r\n")
    assert json.loads(stub.bodies[-1]) == ASK
    for each in (writer, chunked):
        each.close()


@pytest.mark.xdist_group("measures")
async def test_memory_that_bodies_took_is_bounded_and_given_back(gateway, stub):
    await gateway.route(stub, keys=[key(rpm=5)], body_bytes=16 * MIB, bodies_bytes=128 * MIB)
    assert b" 200 " in await gateway.post(ASK, bearer())
    before = gateway.rss()

    async def send():
        _, writer = await begun(gateway, 15 * MIB)
        try:
            for _ in range(150):
                writer.write(b" " * 100_000)
                await writer.drain()
        except ConnectionError:
            pass
        return writer

    async with asyncio.timeout(60):
        writers = await asyncio.gather(*(send() for _ in range(30)))
    assert gateway.rss() - before < 100 * MIB
    for writer in writers:
        writer.transport.abort()
    await _settled(gateway)
    async with asyncio.timeout(10):
        while gateway.rss() - before > 12 * MIB:
            await asyncio.sleep(0.05)
    body = json.dumps(ASK).encode().rjust(15 * MIB)
    for _ in range(3):  # nor is what was whole
        reader, writer = await gateway.open()
        writer.write(head(len(body)) + body)
        async with asyncio.timeout(20):
            await reader.readuntil(b"}")
        writer.close()
    async with asyncio.timeout(10):
        while gateway.rss() - before > 12 * MIB:
            await asyncio.sleep(0.05)


async def _settled(gateway) -> None:
    """What was sent has been read: an answer that was asked for later has come."""
    for _ in range(3):
        assert b" 200 " in await gateway.raw(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 40), st.booleans())))
def test_no_caller_has_more_than_is_left_and_all_is_given_back(steps):
    intake, limits = Intake(), wire.GatewayLimits(body_bytes=1, bodies_bytes=100)
    there: list[tuple[str, int]] = []
    for caller, size, ends in steps:
        if ends and there:
            intake.leave(*there.pop(0))
            continue
        theirs = sum(n for who, n in there if who == caller)
        left = 100 - sum(n for _, n in there) - size
        try:
            intake.take(caller, 0, size, limits)
        except Refusal as refusal:
            assert theirs + size > left
            assert refusal.status == (429 if theirs else 503)
        else:
            assert theirs + size <= left
            there.append((caller, size))
    assert intake.bytes == sum(n for _, n in there)
    for caller, size in there:
        intake.leave(caller, size)
    assert (intake.bytes, len(intake)) == (0, 0)
