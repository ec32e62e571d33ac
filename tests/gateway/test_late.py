"""A request that begins and is not whole in time."""

import asyncio
import os

import pytest

from core.gateway import listener, wire
from core.gateway.core import Core
from core.gateway.listener import ClientConnection
from core.gateway.routes import Table
from core.gateway.usage import Spool


@pytest.mark.parametrize(
    "half",
    [b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"model\":"],
    ids=["in its head", "in its body"],
)  # fmt: skip
async def test_it_is_answered_408_and_its_connection_closed(tmp_path, monkeypatch, half):
    monkeypatch.setattr(listener, "LINGER_S", 0.1)
    spool = Spool(tmp_path / "spool", "l1")
    table = Table(tmp_path / "snapshot.json")
    await table.apply(
        wire.Snapshot(
            database="d", epoch=1, n=1, routes=(), allowed=wire.Allowed(uids=(os.getuid(),)),
            limits=wire.GatewayLimits(idle_timeout_s=0.1, request_timeout_s=0.1),
        )
    )  # fmt: skip
    core = Core(table, spool, owner=os.getuid())
    server = await asyncio.get_running_loop().create_unix_server(lambda: ClientConnection(core), tmp_path / "g.sock")
    reader, writer = await asyncio.open_unix_connection(tmp_path / "g.sock")
    writer.write(half)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    spool.close()
    assert answer.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"the request was not whole within 0.2 s" in answer
