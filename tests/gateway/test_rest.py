"""What a stream comes to whose client has gone: what its engine still makes is read, and its own count is asked for."""

from __future__ import annotations

import asyncio
import json

import pytest
from test_keyed import ASK, bearer, key, streaming
from test_subjects import spent

from core.gateway.bodies import with_progress
from core.gateway.rest import made_of

PIECE = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
READ = b'data: {"choices":[{}],"prompt_progress":{"total":7,"cache":2,"processed":7}}\n\n'
CUT = {**ASK, "stream": True, "return_progress": True}


def answered(body: bytes, status: int = 200) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body


def slots(*tokens: int | None, status: int = 200, ours: int = 1, cut: int = 0):
    """Slots with so many tokens each, of which the first `ours` have the mark of the request."""

    def answer(asked: dict) -> bytes:
        found = []
        for n, each in enumerate(tokens):
            params = {"n_discard": asked["n_discard"] if n < ours else 0, "seed": 1, "stream": True}
            told = {} if each is None else {"n_prompt_tokens": each}
            found.append({"id": n, "id_task": 9, "is_processing": n == 0, "params": params, **told})
        return answered(json.dumps(found).encode()[cut:], status)

    return answer


async def cut(gateway, stub):
    """A stream whose client goes when the engine has begun to read the prompt."""
    stub.hold.clear()
    reader, writer = await gateway.open()
    body = json.dumps(CUT).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"prompt_progress")
    writer.close()
    async with asyncio.timeout(20):
        line = await gateway.line()
    assert line.outcome == "client-gone"
    return line


@pytest.fixture
async def routed(gateway, stub):
    """The engine makes two events more of a stream that is cut."""
    await gateway.route(stub)
    await gateway.change(prompt_progress=True)
    stub.more = [READ, PIECE, PIECE]
    return gateway


async def test_a_stream_that_was_cut_is_billed_by_the_engine_s_own_count(routed, stub):
    """Two of its four tokens came as events, the last one does not lie in the slot: 7 + 3. The other slots are of
    others."""
    stub.slots = slots(10, 11, 5000)
    line = await cut(routed, stub)
    assert (line.prompt_tokens, line.cached_tokens, line.answer_tokens, line.estimated) == (7, 2, 4, False)
    assert stub.heads[-1].startswith(b"GET /slots HTTP/1.1\r\n")


UNTOLD = {
    "none is ours": slots(10, 11, ours=0),
    "several are: `n` answers": slots(10, 11, ours=2),
    "an older build tells no tokens": slots(None),
    "no JSON": slots(10, cut=3),
    "another thing": lambda asked: answered(b'{"slots": 1}'),
    "no slots": lambda asked: answered(b"[]"),
}


@pytest.mark.parametrize("answer", UNTOLD.values(), ids=UNTOLD.keys())
def test_a_list_of_slots_that_does_not_tell(answer):
    assert made_of(answer({"n_discard": 7}).partition(b"\r\n\r\n")[2], 7, 3) is None


UNUSED = {"it hangs up": None, "it refuses": slots(10, status=501), "fewer than came": slots(6)}


async def test_where_the_engine_does_not_tell_it_the_events_are_billed_up_to_its_last(routed, stub):
    for n, answer in enumerate(UNUSED.values(), 1):
        stub.slots = answer
        line = await cut(routed, stub)
        assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (7, 2, True)
        assert [head.split()[1] for head in stub.heads] == [b"/v1/chat/completions", b"/slots"] * n
        routed.usage.clear()


async def test_a_long_list_of_slots_is_read_in_parts(routed, stub):
    stub.slots = slots(10, *[5000] * 2000)
    assert (await cut(routed, stub)).answer_tokens == 4


async def test_a_stream_that_ended_meanwhile_tells_by_itself(routed, stub):
    stub.more = [READ, b'data: {"choices":[],"timings":{"prompt_n":5,"cache_n":2,"predicted_n":9}}\n\n']
    line = await cut(routed, stub)
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (7, 9, False)
    assert len(stub.heads) == 1


async def test_an_engine_that_reads_on_delays_nothing_but_the_line(gateway, stub):
    """Who has gone may ask again at once, and the line comes in time."""
    await gateway.route(stub, keys=[key(concurrency=1, daily_tokens=1000)], slots=2)
    await gateway.change(prompt_progress=True)
    stub.hold.clear()
    stub.more = None
    stub.late = asyncio.Event()
    stub.late.set()
    reader, writer = await gateway.open()
    body = json.dumps({**CUT, "max_tokens": 20}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{bearer()}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b"prompt_progress")
    writer.close()
    async with asyncio.timeout(20):
        await stub.gone.wait()
        assert b" 200 " in await gateway.post({**ASK, "max_tokens": 20}, bearer())
        first = await gateway.line()
        assert first.outcome == "ok"
        assert (await gateway.line(lambda line: line.outcome == "client-gone")).answer_tokens is None


async def test_what_the_engine_told_late_is_settled_with_the_limits_too(gateway, stub):
    await gateway.route(stub, keys=[key(daily_tokens=1000, tpm_out=1000)])
    await gateway.change(prompt_progress=True)
    stub.more, stub.slots = [PIECE] * 5, slots(2 + 30 - 1)
    stub.scripts[b"/v1/chat/completions"] = 200, [READ.replace(b'"processed":7', b'"processed":2'), PIECE, PIECE]
    stub.hold.clear()
    reader, writer = await gateway.open()
    body = json.dumps({**CUT, "max_tokens": 100}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n{bearer()}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await reader.readuntil(b"prompt_progress")
    writer.close()
    async with asyncio.timeout(20):
        line = await gateway.line()
    assert (line.prompt_tokens, line.answer_tokens, line.estimated) == (2, 30, False)
    told = await spent(gateway, subjects=("key:k1",))
    assert told["key:k1", "daily_tokens"].used == 32 and told["key:k1", "tpm_out"].used == 30


async def test_a_gateway_that_ends_waits_for_what_the_engines_made(routed, stub):
    stub.slots = slots(10)
    stub.hold.clear()
    reader, writer = await routed.open()
    body = json.dumps(CUT).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await reader.readuntil(b"prompt_progress")
    await asyncio.to_thread(routed.stop)
    writer.close()
    (file,) = (routed.folder / "spool").glob("*.jsonl")
    (line,) = json.loads(file.read_bytes())["lines"]
    assert (line["outcome"], line["answer_tokens"]) == ("client-gone", 4)


@pytest.mark.parametrize("said", [{}, {"return_progress": False}, {"n_discard": 5}])
def test_a_body_has_its_mark_once(said):
    made = with_progress(json.dumps({"model": "m", **said}).encode(), 77)
    assert json.loads(made) == {"model": "m", "return_progress": True, "n_discard": 77}
    assert made.count(b"n_discard") == made.count(b"return_progress") == 1


async def test_nothing_is_asked_of_an_engine_that_does_not_tell(gateway, stub):
    await gateway.route(stub, keys=[key()])
    stub.hold.clear()
    _, writer = await streaming(gateway)
    writer.close()
    async with asyncio.timeout(20):
        line = await gateway.line()
    assert (line.answer_tokens, line.estimated, len(stub.heads)) == (1, True, 1)
    assert b"n_discard" not in stub.bodies[0]
