"""The stream of an answer that has not begun: it opens at once, says what it waits for, and is kept alive."""

import asyncio
import os
import pwd
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from core.access import Gate, Rights
from core.api.chats import add_chats
from core.api.server import PING_S, Server
from core.audit import Audit
from core.chats import Chats, Rules, asking
from core.chats.sealed import Master, Ring
from core.client import Client
from core.errors import NotFound
from core.events import Bus
from core.nouns import Actor, ChatOptions, Deployment, DeploymentSpec, Turn
from core.paths import Paths
from core.store import Store

ME = Actor(uid=os.getuid(), name=pwd.getpwuid(os.getuid()).pw_name)


class House:
    """A daemon's chats behind their routes; the gateway (a double) takes a question and says nothing until `go`."""

    chats: Chats
    client: Client

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.queued: tuple[int, float] | None = None
        self.now = 1_700_000_000.0

    async def gateway(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await self.go.wait()
        said = b'data: {"choices":[{"delta":{"content":"hello"}}]}\n\ndata: [DONE]\n\n'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(said) + said)
        writer.close()

    async def deployment(self, name: str) -> Deployment | None:
        spec = DeploymentSpec(name="chat", model="m", ctx=4096)
        return Deployment(
            spec=spec, wanted="running", state="ready", reason="", since=0, created_at=0, created_by="a", ready=1
        )


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(asking, "LOOK_S", 0.01)
    house = House()
    gateway = await asyncio.start_unix_server(house.gateway, tmp_path / "g.sock")
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    store = await Store.open(paths, packages=("core.store", "core.audit", "core.chats"))
    gate = Gate(store, Audit(store, paths), Rights(mode="user", owner_uid=os.getuid()))
    house.chats = Chats(
        store, gate, Bus(), Ring(Master(b"k" * 32)), Rules(store, gate, lambda: house.now, lambda: 0),
        gateway_socket=tmp_path / "g.sock", deployment=house.deployment, clock=lambda: house.now,
        queued=lambda turn: house.queued,
    )  # fmt: skip
    server = Server(gate, "the log")
    add_chats(server, house.chats)
    runner = web.AppRunner(server.app, access_log=None, shutdown_timeout=1.0, handle_signals=False)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "s")).start()
    house.client = Client(tmp_path / "s")
    yield house
    house.go.set()
    await house.chats.close()
    await runner.cleanup()
    server.close()
    gateway.close()
    await store.close()


async def asked(house: House) -> Turn:
    chat = await house.chats.create(ME, "r", "chat", ChatOptions())
    return await house.chats.turns.ask(ME, "r", chat.id, "why?")


async def test_it_opens_at_once_and_says_what_the_answer_waits_for(house: House) -> None:
    turn = await asked(house)
    pieces = house.client.stream_turn(turn.chat, turn.id)
    async with asyncio.timeout(10):
        assert await anext(pieces) == {"offset": 0, "text": "", "waits": "", "place": 0, "wait_s": 0}
        house.queued, house.now = (3, 7.2), house.now + 3
        first = await anext(pieces)
        assert (first["waits"], first["place"], first["wait_s"]) == ("queued", 3, 8)
        house.queued = (2, 0.0)  # who was before it has been served
        assert [(each := await anext(pieces))["waits"], each["place"], each["wait_s"]] == ["queued", 2, 0]
        house.queued = (0, 0.0)
        assert (await anext(pieces))["waits"] == "prompt"
        house.go.set()
        rest: list[Any] = [piece async for piece in pieces]
    assert "".join(piece.get("text", "") for piece in rest) == "hello"
    assert rest[-1]["turn"].state == "done"


async def test_it_is_kept_alive_while_nothing_comes(house: House) -> None:
    turn = await asked(house)
    pieces = house.client.stream_turn(turn.chat, turn.id)
    async with asyncio.timeout(10):
        first = await anext(pieces)
        house.now += PING_S + 1
        assert await anext(pieces) == first


async def test_a_turn_that_is_not_there_is_still_told_by_status(house: House) -> None:
    turn = await asked(house)
    with pytest.raises(NotFound):
        await anext(house.client.stream_turn(turn.chat, "nosuch"))
