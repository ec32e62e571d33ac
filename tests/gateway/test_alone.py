"""A chat turn whose daemon has gone: it goes on while somebody follows it, else for a while, and never without end."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from core.gateway import exchange, wire
from core.gateway.apis import CHAT
from core.gateway.asked import read
from core.gateway.core import Core
from core.gateway.routes import Table
from core.gateway.turns import TURN_BYTES, Turn
from core.gateway.usage import Spool


class Ear:
    """A follower."""

    def __init__(self) -> None:
        self.heard = b""

    def turn_part(self, data: bytes, last: bool) -> None:
        self.heard += data


def test_a_long_answer_is_kept_from_its_last_mebibyte_on() -> None:
    turn, ear = Turn(lambda: None), Ear()
    turn.followers.append(ear)
    whole = b"".join(b"%07d\n" % n for n in range(3 * TURN_BYTES // 8))
    for at in range(0, len(whole), 4096):
        assert turn.add(whole[at : at + 4096], False)
    assert ear.heard == whole
    assert len(turn.data) <= 2 * TURN_BYTES
    assert turn.since(len(whole) - TURN_BYTES) == whole[-TURN_BYTES:]
    assert turn.since(0) is None


def test_what_nobody_hears_is_bounded_and_counts_anew_when_somebody_comes() -> None:
    turn = Turn(lambda: None)
    half = b"x" * (TURN_BYTES // 2)
    assert turn.add(half, False) and turn.add(half, False)
    turn.followers.append(ear := Ear())
    assert turn.add(half, False)
    turn.leave(ear)
    assert turn.add(half, False) and turn.add(half, False) and not turn.add(half, False)


@pytest.mark.parametrize("followed", [True, False])
async def test_only_a_turn_that_nobody_follows_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, followed: bool
) -> None:
    monkeypatch.setattr(exchange, "ALONE_S", 0.05)
    core = Core(Table(tmp_path / "snapshot.json"), Spool(tmp_path / "spool", "launch0001"), owner=os.getuid())
    engine = socket.socket(socket.AF_UNIX)
    engine.bind(str(tmp_path / "e.sock"))
    engine.listen()
    replica = wire.ReplicaRoute(id="chat/0", launch="l0", endpoint=f"unix:{tmp_path}/e.sock")
    route = wire.Route(name="chat", model="m", state="ready", replicas=(replica,))
    allowed = wire.Allowed(uids=(os.getuid(),))
    await core.table.apply(
        wire.Snapshot(database="d", epoch=1, n=1, routes=(route,), allowed=allowed, limits=wire.GatewayLimits())
    )
    asked = read(CHAT, b'{"model": "chat", "stream": true}')
    one = exchange.Exchange(core, None, CHAT, b"{}", asked, os.getuid(), f"{os.getuid()}:a", "t1")
    one.start(asked)
    turn = core.turns.get("t1")
    assert turn is not None
    ear = Ear()
    if followed:
        turn.followers.append(ear)
    one.client_gone()
    await asyncio.sleep(0.2)  # several times as long as it may run alone
    assert (turn.ended is None) == followed
    if followed:
        turn.leave(ear)
        async with asyncio.timeout(5):
            while turn.ended is None:
                await asyncio.sleep(0.01)
    assert b"nobody came back" in bytes(turn.data)
    engine.close()
