"""Chats over a real store, and a double of the gateway that keeps to what core/gateway does with turns."""

import asyncio
import contextlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.access import Gate, Rights
from core.audit import Audit
from core.chats import PRIVATE_S, Chats, Forgetting, Holds, Others, Retention, Rules, Sealing
from core.chats.sealed import Master, Ring
from core.events import Bus
from core.nouns import Actor, Deployment, DeploymentSpec
from core.paths import Paths
from core.store import Store

ALICE = Actor(uid=1000, name="alice")
PACKAGES = ("core.store", "core.audit", "core.chats")


def event(text: str) -> bytes:
    return b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"


FIGURES = (
    b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"timings":'
    b'{"cache_n":3,"prompt_n":7,"predicted_n":2,"predicted_per_second":88.42}}\n\n'
)
DONE = b"data: [DONE]\n\n"


class GatewayDouble:
    """One turn is a script of bytes; `None` in it waits for `go`. As the real one: a turn goes on without its
    daemon, a known id is refused, GET follows from an offset, DELETE ends it with an error event."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.script: list[bytes | None] = [event("Hel"), event("lo"), FIGURES, DONE]
        self.status = 200
        self.go = asyncio.Event()
        self.asked: list[dict] = []
        self.actors: list[str] = []
        self.turns: dict[str, bytearray] = {}
        self.ended: set[str] = set()
        self.news = asyncio.Condition()
        self.makers: list[asyncio.Task[None]] = []
        self.callers: set[asyncio.Task] = set()
        self.broken = False

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        self._server.close()
        for task in (*self.makers, *self.callers):
            task.cancel()
        await asyncio.gather(*self.makers, *self.callers, return_exceptions=True)

    async def _make(self, id: str) -> None:
        for piece in self.script:
            if piece is None:
                await self.go.wait()
                continue
            await self._add(id, piece)
        await self._add(id, b"", last=True)

    async def _add(self, id: str, piece: bytes, last: bool = False) -> None:
        async with self.news:
            if id in self.ended:
                return
            self.turns[id] += piece
            if last:
                self.ended.add(id)
            self.news.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.callers.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await self._answer(reader, writer)
        except asyncio.CancelledError:
            return
        finally:
            self.callers.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        method, target, _ = head.split("\r\n")[0].split()
        fields = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        body = await reader.readexactly(int(fields.get("content-length", 0)))
        self.actors.append(fields["x-corral-actor"])
        if method == "POST":
            id = fields["x-corral-turn"]
            self.asked.append(json.loads(body))
            if self.status != 200 or id in self.turns:
                await self._refuse(writer, self.status if self.status != 200 else 409, "no room for it")
                return
            self.turns[id] = bytearray()
            self.makers.append(asyncio.create_task(self._make(id)))
            await self._follow(writer, id, 0)
            return
        id, _, query = target.removeprefix("/corral/turns/").partition("?offset=")
        if id not in self.turns:
            await self._refuse(writer, 404, "no such turn")
        elif method == "DELETE":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await writer.drain()
            await self._add(id, b'data: {"error":{"message":"the answer was stopped"}}\n\n', last=True)
        else:
            await self._follow(writer, id, int(query))

    async def _refuse(self, writer: asyncio.StreamWriter, status: int, message: str) -> None:
        raw = json.dumps({"error": {"message": message}}).encode()
        writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n" % (status, len(raw)) + raw)
        await writer.drain()

    async def _follow(self, writer: asyncio.StreamWriter, id: str, offset: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            async with self.news:
                while len(self.turns[id]) <= offset and id not in self.ended and not self.broken:
                    await self.news.wait()
                data, last = bytes(self.turns[id][offset:]), id in self.ended
            if self.broken:
                return
            if data:
                writer.write(b"%x\r\n%b\r\n" % (len(data), data))
                offset += len(data)
            if last:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            if last:
                return

    async def break_off(self) -> None:
        """As a gateway that is killed: every connection closes in the middle."""
        self.broken = True
        async with self.news:
            self.news.notify_all()


class House:
    """Store, audit, gate and bus; `chats()` is a daemon's start."""

    def __init__(self, paths: Paths, store: Store, gateway: GatewayDouble) -> None:
        self.paths, self.store, self.gateway = paths, store, gateway
        self.audit = Audit(store, paths, clock=time.time)
        self.gate = Gate(store, self.audit, Rights(mode="user", owner_uid=1000))
        self.bus = Bus()
        self.now = 1_700_000_000.0
        self.ctx = 512
        self.state = "ready"
        self.queued: tuple[int, float] | None = None
        self.days = 0
        self.master = Master(b"k" * 32)
        self.ring = Ring(self.master)
        self.rules = Rules(store, self.gate, lambda: self.now, lambda: self.days)
        self.holds = Holds(store, self.gate, lambda: self.now)
        self.others = Others(self.gate, self.ring)
        self.sealing = Sealing(store, self.gate, self.ring)

    async def deployment(self, name: str) -> Deployment | None:
        if name != "chat":
            return None
        spec = DeploymentSpec(name="chat", model="m", ctx=self.ctx * 2, parallel=2)
        return Deployment(
            spec=spec, wanted="running", state=self.state, reason="why", since=0, created_at=0, created_by="a", ready=1
        )

    def chats(self) -> Chats:
        return Chats(
            self.store, self.gate, self.bus, self.ring, self.rules, gateway_socket=self.gateway.path,
            deployment=self.deployment, clock=lambda: self.now, queued=lambda turn: self.queued,
        )  # fmt: skip

    def retention(self, chats: Chats, groups=None) -> Retention:
        async def none(owner) -> frozenset[int]:
            return frozenset()

        return Retention(
            self.store, self.gate, self.bus, self.rules, end_private=lambda: chats.end_private(PRIVATE_S),
            groups=groups or none, clock=lambda: self.now,
        )  # fmt: skip

    def forgetting(self, chats: Chats) -> Forgetting:
        return Forgetting(self.store, self.gate, self.bus, self.ring, chats)

    def boxes(self, chat: str) -> list[bytes]:
        """The sealed bytes of a chat, as they lie in the database."""
        with contextlib.closing(sqlite3.connect(self.paths.database)) as db:
            (head,) = db.execute("SELECT sealed FROM chats WHERE id = ?", (chat,)).fetchone()
            turns = db.execute("SELECT asked, answered FROM turns WHERE chat = ?", (chat,)).fetchall()
        return [head, *(box for turn in turns for box in turn)]

    def holding(self, text: str) -> list[Path]:
        """Files below the home in which this stands."""
        found = [path for path in self.paths.root.rglob("*") if path.is_file()]
        return [path for path in found if text.encode() in path.read_bytes()]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    paths = Paths(tmp_path, tmp_path / "corral.toml", "0badcafe")
    paths.state.mkdir()
    gateway = GatewayDouble(tmp_path / "g.sock")
    await gateway.start()
    store = await Store.open(paths, packages=PACKAGES)
    yield House(paths, store, gateway)
    await store.close()
    await gateway.close()


@pytest.fixture
async def chats(house: House) -> AsyncIterator[Chats]:
    chats = house.chats()
    await chats.start()
    yield chats
    await chats.close()
