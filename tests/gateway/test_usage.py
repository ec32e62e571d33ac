"""The line of usage that each request leaves, the refused ones too."""

import asyncio
import json
import os

import msgspec
import pytest

from core.gateway import wire
from core.gateway.folded import KINDS, Folded

ASK = {"model": "chat", "stream": True}
WHOLE = {"model": "chat"}


def data(answer: bytes) -> list[bytes]:
    """The lines of data, however they are cut into chunks."""
    return [line for line in answer.splitlines() if line.startswith(b"data:")]


async def test_a_stream_s_line_tells_the_first_token_the_version_the_node_and_the_cores(gateway, stub):
    await gateway.route(stub, slots=2)
    (replica,) = gateway.snapshot.routes[0].replicas
    await gateway.change(replicas=(msgspec.structs.replace(replica, version=3, node="gpu1", cores=8),))
    await gateway.post(ASK)
    line = await gateway.line()
    assert (line.version, line.node, line.requests, line.key, line.outcome) == (3, "gpu1", 1, "", "ok")
    assert line.first_byte_s is not None and line.first_token_s is not None
    assert line.queue_s <= line.first_byte_s <= line.first_token_s <= line.total_s
    assert line.core_s == pytest.approx((line.total_s - line.queue_s) * 8 / 2)


async def test_an_answer_that_is_no_stream_has_no_first_token(gateway, stub):
    await gateway.route(stub)
    await gateway.post(WHOLE)
    line = await gateway.line()
    assert line.first_token_s is None and line.first_byte_s is not None and line.core_s == 0


async def test_the_first_token_is_not_the_head_of_the_answer(gateway, stub):
    await gateway.route(stub)
    stub.late = asyncio.Event()
    asking = asyncio.create_task(gateway.post(ASK))
    async with asyncio.timeout(20):
        await stub.headed.wait()
        await asyncio.sleep(0.1)  # what is measured
        stub.late.set()
        await asking
    line = await gateway.line()
    assert line.first_token_s is not None and line.first_byte_s is not None
    assert line.first_token_s - line.first_byte_s > 0.05


async def test_a_stream_that_is_cut_has_cost_its_prompt_too(gateway, stub):
    await gateway.route(stub)
    await gateway.change(prompt_progress=True)
    stub.hold.clear()
    _, writer = await gateway.open()
    body = json.dumps(ASK).encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while not stub.bodies:
            await asyncio.sleep(0.01)
        writer.close()
        await stub.gone.wait()
    line = await gateway.line()
    assert (line.outcome, line.prompt_tokens, line.cached_tokens, line.answer_tokens) == ("client-gone", 2, 2, None)
    assert line.first_token_s is None and not line.estimated


async def test_a_client_that_did_not_ask_sees_nothing_of_the_progress(gateway, stub):
    await gateway.route(stub)
    plain = data(await gateway.post(ASK))
    await gateway.change(prompt_progress=True)
    assert data(await gateway.post(ASK)) == plain and b'"return_progress":true' in stub.bodies[-1]
    told = await gateway.post({**ASK, "return_progress": True})
    assert told.count(b"prompt_progress") == 2 and stub.bodies[-1].count(b"return_progress") == 1
    for said in (False, None, 1, "yes"):  # whoever says no is not served for nothing
        assert data(await gateway.post({**ASK, "return_progress": said})) == plain
        assert json.loads(stub.bodies[-1])["return_progress"] is True
    await gateway.post(WHOLE)
    assert b"return_progress" not in stub.bodies[-1]
    await gateway.line(lambda line: line.total_s and not line.first_token_s)
    lines = [line for batch in gateway.usage for line in batch.lines]
    assert [(each.prompt_tokens, each.answer_tokens) for each in lines] == [(7, 3)] * 7 + [(5, 2)]


async def test_refusals_before_a_deployment_is_reached_leave_one_line_of_each_kind(gateway, stub):
    await gateway.route(stub)
    for name in ("x", "y", "z"):
        assert b" 404 " in await gateway.post({"model": name})
    assert b" 400 " in await gateway.raw(b"POST /v1/completions HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}")
    counted = {}
    async with asyncio.timeout(20):
        while sum(counted.values()) < 4:
            await gateway.expect(wire.UsageBatch)
            counted = {}
            for line in (line for batch in gateway.usage for line in batch.lines):
                assert (line.uid, line.deployment, line.outcome) == (os.getuid(), "", "refused")
                kind = (line.path, line.status)
                counted[kind] = counted.get(kind, 0) + line.requests
    assert counted == {("/v1/chat/completions", 404): 3, ("/v1/completions", 400): 1}


async def test_whoever_may_nothing_leaves_a_line_and_names_nothing(gateway, stub):
    await gateway.route(stub, uids=(12345,))
    assert b" 403 " in await gateway.post(ASK)
    line = await gateway.line()
    assert (line.uid, line.deployment, line.status, line.outcome) == (os.getuid(), "", 403, "refused")


def test_a_flood_of_refusals_makes_few_lines_and_loses_none():
    folded = Folded(lambda: "id", lambda: 5.0)
    for n in range(KINDS * 3):
        folded.add(n, "", "", 403)
    folded.add(0, "", "", 403)
    lines = list(folded.lines())
    assert len(lines) == KINDS + 1
    assert sum(line.requests for line in lines) == KINDS * 3 + 1
    assert not list(folded.lines())
