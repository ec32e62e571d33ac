"""The line of usage that each request leaves, the refused ones too."""

import asyncio
import os

import msgspec
import pytest

from core.gateway import wire
from core.gateway.folded import KINDS, Folded

ASK = {"model": "chat", "stream": True}
WHOLE = {"model": "chat"}


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
