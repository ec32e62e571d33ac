"""What a request leaves behind: a line of usage, and nothing that Python would have to look for."""

import asyncio
import gc
import hashlib
import os
import socket

import pytest

from core.gateway import wire
from core.gateway.core import Core
from core.gateway.listener import ClientConnection
from core.gateway.routes import Table
from core.gateway.upstream import EngineConnection
from core.gateway.usage import Spool

SECRET = b"sk-corral-test"
BODY = b'{"model":"chat"}'
HEAD = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %b\r\nContent-Length: " % SECRET
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
STREAM = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
)


class Transport:
    """Takes everything."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.written = b""

    def get_extra_info(self, name: str) -> socket.socket:
        return self.sock

    def write(self, data: bytes) -> None:
        self.written += data


@pytest.mark.parametrize(
    ("body", "answer"),
    [(BODY, WHOLE), (BODY[:-1] + b',"stream":true}', STREAM)],
    ids=["whole", "stream"],
)  # fmt: skip
async def test_a_request_that_is_counted_leaves_no_cycle(tmp_path, body, answer):
    ours, theirs = socket.socketpair()
    core = Core(Table(tmp_path / "snapshot.json"), Spool(tmp_path / "spool", "launch0001"), owner=os.getuid())
    replica = wire.ReplicaRoute(id="chat/0", launch="l0", endpoint="unix:/nowhere/e.sock")
    key = wire.Key(
        id="k1", name="program", hash=hashlib.sha256(SECRET).hexdigest(), owner="ann", uid=4242,
        deployments=("chat",), limits=wire.Limits(rpm=1000, tpm=10**9),
    )  # fmt: skip
    route = wire.Route(name="chat", model="m", state="ready", replicas=(replica,))
    await core.table.apply(
        wire.Snapshot(
            database="d", epoch=1, n=1, routes=(route,), allowed=wire.Allowed(), limits=wire.GatewayLimits(),
            keys=(key,),
        )
    )  # fmt: skip
    pool = core.table.seats["chat/0", "l0"].pool
    engine, client = EngineConnection(pool), ClientConnection(core)
    engine.connection_made(Transport(ours))
    pool.put(engine)
    client.connection_made(there := Transport(ours))
    gc.collect()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        for _ in range(3):
            client.data_received(HEAD + b"%d\r\n\r\n%b" % (len(body), body))
            engine.data_received(answer)
            await asyncio.sleep(0)
        gc.collect()
        left = [type(each).__name__ for each in gc.garbage if type(each).__module__.startswith("core.gateway")]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
    assert there.written.count(b"HTTP/1.1 200 OK") == 3
    assert left == []
    client.connection_lost(None)
    core.spool.close()
    ours.close()
    theirs.close()
