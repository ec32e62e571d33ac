"""Bytes of one client are read in the order in which they came, whenever the loop gets to them."""

import asyncio
import os
import socket

from core.gateway import wire
from core.gateway.core import Core
from core.gateway.listener import ClientConnection
from core.gateway.routes import Table
from core.gateway.upstream import EngineConnection
from core.gateway.usage import Spool

BODY = b'{"model":"chat"}'
REQUEST = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Transport:
    """Stands for a socket: which of two sockets the loop reads first cannot be chosen with real ones."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.written = b""

    def get_extra_info(self, name: str) -> socket.socket:
        return self.sock

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        pass


async def test_bytes_that_come_between_an_answer_and_what_was_sent_ahead_stay_behind_it(tmp_path):
    ours, theirs = socket.socketpair()
    core = Core(Table(tmp_path / "snapshot.json"), Spool(tmp_path / "spool", "launch0001"), owner=os.getuid())
    replica = wire.ReplicaRoute(id="chat/0", launch="l0", endpoint="unix:/nowhere/e.sock")
    route = wire.Route(name="chat", model="m", state="ready", replicas=(replica,))
    await core.table.apply(
        wire.Snapshot(
            database="d", epoch=1, n=1, routes=(route,), allowed=wire.Allowed(uids=(os.getuid(),)),
            limits=wire.GatewayLimits(),
        )
    )  # fmt: skip
    pool = core.table.seats["chat/0", "l0"].pool
    engine, client = EngineConnection(pool), ClientConnection(core)
    to_engine, to_client = Transport(ours), Transport(ours)
    engine.connection_made(to_engine)
    pool.put(engine)
    client.connection_made(to_client)
    client.data_received(REQUEST)
    client.data_received(REQUEST[:30])
    engine.data_received(ANSWER)
    client.data_received(REQUEST[30:])
    for _ in range(3):
        await asyncio.sleep(0)
    engine.data_received(ANSWER)
    for _ in range(3):
        await asyncio.sleep(0)
    assert to_engine.written.count(BODY) == 2
    assert to_client.written.count(b"HTTP/1.1 200 OK") == 2
    client.connection_lost(None)
    core.spool.close()
    ours.close()
    theirs.close()
