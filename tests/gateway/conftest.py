"""A gateway process with a stub engine (a double that speaks llama.cpp's HTTP) and a small daemon's end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import command
import msgspec
import psutil
import pytest

from core.gateway import wire
from core.gateway.apis import APIS
from core.gateway.control import LINE_LIMIT

PIECE = b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % (b"x" * 16_000)
"""One event of a flood."""


class Stub:
    """Answers on a Unix socket as llama.cpp does; `hold` keeps streams open after their first event.

    `flood` = so many large events in a stream; `sent` counts them, and `stalled` is set when the other end takes
    none. `size` = bytes of an answer that is not streamed. `silent` = it never answers. `slams` = so many of its
    connections it closes, without an answer, when a second request comes on them. `drops` = it takes a request
    whole and closes the connection. `scripts` = what it answers on other paths: status, and JSON in one piece or
    events in several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.hold = asyncio.Event()
        self.hold.set()
        self.gone = asyncio.Event()
        self.bodies: list[bytes] = []
        self.heads: list[bytes] = []
        self.flood = 0
        self.sent = 0
        self.stalled = asyncio.Event()
        self.size = 1
        self.silent = False
        self.late: asyncio.Event | None = None
        """Events come when it is set, and the head before that: `headed`."""
        self.headed = asyncio.Event()
        self.slams = 0
        self.drops = False
        self.die = False
        self.torn = False
        """It promises more of an answer in one piece than comes, and closes."""
        self.connections = 0
        self.more: list[bytes] | None = []
        """Events that it still makes of a stream whose client has gone; None: it does not notice."""
        self.slots: Callable[[dict], bytes] | None = None
        """Its answer when it is asked for its slots, by the request before; None: it hangs up."""
        self.scripts: dict[bytes, tuple[int, bytes | list[bytes]]] = {}
        self.serving: dict[asyncio.Task, asyncio.StreamWriter] = {}

    async def serve(self, reader, writer) -> None:
        self.connections += 1
        served = 0
        task = asyncio.current_task()
        self.serving[task] = writer
        task.add_done_callback(self.serving.pop)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int((head.lower() + b"content-length:0").split(b"content-length:")[1].split(b"\r\n")[0])
                body = await reader.readexactly(length)
                served += 1
                if self.slams and served > 1:
                    self.slams -= 1
                    return
                self.heads.append(head)
                if head.startswith(b"GET /slots "):
                    writer.write(self.slots(json.loads(self.bodies[-1])) if self.slots is not None else b"")
                    await writer.drain()
                    if self.slots is None:
                        return
                    continue
                self.bodies.append(body)
                if self.drops:
                    return
                if self.silent:
                    await reader.read()
                    self.gone.set()
                    return
                try:
                    asked = json.loads(body)
                except (ValueError, RecursionError):
                    writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\n{}")
                    await writer.drain()
                    continue
                status, script = self.scripts.get(head.split(b" ")[1], (200, None))
                if isinstance(script, bytes) or (script is None and not asked.get("stream")):
                    usage = {"prompt_tokens": 5, "completion_tokens": 2}
                    answer = script or json.dumps({"choices": [{"x": "y" * self.size}], "usage": usage}).encode()
                    kind = b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(answer)
                    if self.torn:
                        kind = kind.replace(b"Length: ", b"Length: 9")
                    writer.write(b"HTTP/1.1 %d X\r\n" % status + kind + answer)
                    await writer.drain()
                    if self.torn:
                        return
                    continue
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
                )
                if self.late is not None:
                    await writer.drain()
                    self.headed.set()
                    await self.late.wait()
                if self.flood:
                    await self._flood(writer)
                    continue
                events = [b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % i for i in range(3)]
                if asked.get("return_progress"):
                    read = b'data: {"choices":[{}],"prompt_progress":{"total":7,"cache":2,"processed":%d}}\n\n'
                    events = [read % 2, read % 7, *events]
                if (asked.get("stream_options") or {}).get("include_usage"):
                    events.append(b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n')
                events.append(b"data: [DONE]\n\n")
                for event in script or events:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                    await writer.drain()
                    if self.die:
                        return
                    if not self.hold.is_set():
                        waits = asyncio.create_task(self.hold.wait())
                        gone = asyncio.create_task(reader.read(1))
                        await asyncio.wait({waits, gone}, return_when=asyncio.FIRST_COMPLETED)
                        waits.cancel()
                        if gone.done():
                            self.gone.set()
                            if self.more is None:
                                await self.hold.wait()
                            for each in self.more or ():
                                writer.write(b"%x\r\n%b\r\n" % (len(each), each))
                            await writer.drain()
                            return
                        gone.cancel()
                        with contextlib.suppress(asyncio.CancelledError):
                            await gone
                writer.write(b"0\r\n\r\n")
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            writer.close()

    async def _flood(self, writer) -> None:
        for _ in range(self.flood):
            writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
            self.sent += 1
            drain = asyncio.ensure_future(writer.drain())
            done, _ = await asyncio.wait({drain}, timeout=0.5)
            if not done:
                self.stalled.set()
            await drain
        writer.write(b"0\r\n\r\n")


class Gateway:
    """The process, and the daemon's end of its control socket."""

    def __init__(self, folder: Path, launch: str = "launch0001") -> None:
        self.folder = folder
        self.launch = launch
        self.socket = folder / "g.sock"
        self.log = folder / "gateway.log"
        self.n = 0
        self.usage: list[wire.UsageBatch] = []
        self.writer: asyncio.StreamWriter | None = None

    def start(self, *, fork: bool = True) -> None:
        """`fork`: of a process that has its modules loaded (`loaded.py`), which a gateway may be for all but what it
        is given at its start."""
        env = {
            **os.environ,
            "CORRAL_GATEWAY_DIR": str(self.folder),
            "CORRAL_GATEWAY_SOCKET": str(self.socket),
            "CORRAL_GATEWAY_LAUNCH": self.launch,
            "CORRAL_GATEWAY_OWNER": str(os.getuid()),
        }
        with self.log.open("ab") as log:
            if fork:
                self.process = command.gateway(env, log.fileno())
            else:
                self.process = subprocess.Popen([sys.executable, "-P", "-m", "core.gateway"], env=env, stderr=log)

    async def connect(self) -> wire.Welcome:
        async with asyncio.timeout(10):
            while True:
                try:
                    self.reader, self.writer = await asyncio.open_unix_connection(
                        self.folder / "control.sock", limit=LINE_LIMIT
                    )
                    break
                except OSError:
                    await asyncio.sleep(0.02)
        self.send(wire.Hello(version=1, daemon_uid=os.getuid(), daemon_pid=os.getpid(), program="test"))
        return await self.expect(wire.Welcome)

    def hang_up(self) -> None:
        if self.writer is not None:
            self.writer.close()

    def send(self, message) -> None:
        self.writer.write(msgspec.json.encode(message) + b"\n")

    async def expect(self, kind):
        async with asyncio.timeout(10):
            while True:
                found = msgspec.json.decode(await self.reader.readuntil(b"\n"), type=wire.FromGateway)
                if isinstance(found, wire.UsageBatch):
                    self.usage.append(found)
                if isinstance(found, kind):
                    return found

    async def told(self, true) -> wire.Live:
        """The first live figures for which `true` holds."""
        while not true(live := await self.expect(wire.Live)):
            pass
        return live

    async def line(self, true=lambda line: True) -> wire.UsageLine:
        """The first line of usage, from now on or before, for which `true` holds."""
        while not (lines := [line for batch in self.usage for line in batch.lines if true(line)]):
            await self.expect(wire.UsageBatch)
        return lines[0]

    def rss(self) -> int:
        """Bytes that the process has in memory."""
        return psutil.Process(self.process.pid).memory_info().rss

    async def route(
        self, *stubs: Stub, uids=None, gids=(), rules=(), keys=(), limited=(), ended=(), slots=1, **limits
    ) -> wire.Live:
        """Put a snapshot in force; the live figures that came with its acknowledgement."""
        replicas = tuple(
            wire.ReplicaRoute(id=f"chat/{i}", launch=f"l{i}", endpoint=f"unix:{stub.path}", slots=slots)
            for i, stub in enumerate(stubs)
        )
        self.snapshot = wire.Snapshot(
            database="d",
            epoch=1,
            n=self.n,
            routes=(
                wire.Route(
                    name="chat",
                    model="m",
                    state="ready",
                    replicas=replicas,
                    ctx_per_slot=512,
                    serves=tuple(api.path for api in APIS),
                ),
            ),
            allowed=wire.Allowed(uids=(os.getuid(),) if uids is None else uids, gids=gids, rules=tuple(rules)),
            limits=wire.GatewayLimits(**limits),
            keys=tuple(keys),
            limited=tuple(limited),
            ended=tuple(ended),
        )
        return (await self._put())[-1]

    async def change(self, **fields) -> None:
        """Route as before, but for these fields of the deployment's route."""
        route = msgspec.structs.replace(self.snapshot.routes[0], **fields)
        self.snapshot = msgspec.structs.replace(self.snapshot, routes=(route,))
        await self._put()

    async def withdraw(self, replica: str) -> list[wire.Live]:
        """Route without a replica; returns the live figures that came before the acknowledgement."""
        route = self.snapshot.routes[0]
        left = tuple(each for each in route.replicas if each.id != replica)
        self.snapshot = msgspec.structs.replace(self.snapshot, routes=(msgspec.structs.replace(route, replicas=left),))
        return await self._put()

    async def _put(self) -> list[wire.Live]:
        self.n += 1
        self.send(msgspec.structs.replace(self.snapshot, n=self.n))
        told = []
        while not isinstance(found := await self.expect(wire.SnapshotAck | wire.Live), wire.SnapshotAck):
            told.append(found)
        assert found.n == self.n
        return told

    async def open(self):
        return await asyncio.open_unix_connection(self.socket)

    async def raw(self, data: bytes) -> bytes:
        """Send bytes, return all that comes until the gateway closes."""
        reader, writer = await self.open()
        writer.write(data)
        async with asyncio.timeout(10):
            try:
                return await reader.read()
            finally:
                writer.close()

    async def post(self, fields: dict, headers: str = "", path: str = "/v1/chat/completions") -> bytes:
        body = json.dumps(fields).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}"
        return await self.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(10)


@contextlib.asynccontextmanager
async def listening(path: Path):
    stub = Stub(path)
    stub.path.parent.mkdir()
    folder = os.open(stub.path.parent, os.O_PATH)
    server = await asyncio.start_unix_server(stub.serve, f"/proc/self/fd/{folder}/e.sock")
    yield stub
    stub.hold.set()
    server.close()
    for writer in stub.serving.values():
        writer.transport.abort()
    if stub.serving:
        await asyncio.wait(stub.serving, timeout=5)
    os.close(folder)


@pytest.fixture
async def stub(tmp_path):
    """An engine at a path that is too long for a Unix socket's address."""
    async with listening(tmp_path / ("long" * 30) / "e.sock") as stub:
        yield stub


@pytest.fixture
async def stubs(tmp_path):
    """Three engines."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(listening(tmp_path / f"e{n}" / "e.sock")) for n in range(3)]


@pytest.fixture
async def gateway(tmp_path):
    gateway = Gateway(tmp_path)
    gateway.start()
    await gateway.connect()
    yield gateway
    gateway.hang_up()
    if gateway.process.poll() is None:
        gateway.stop(signal.SIGKILL)


@pytest.fixture
async def second(gateway, tmp_path):
    """Another gateway over the same folder; it waits to be handed the listener."""
    second = Gateway(tmp_path, "launch0002")
    second.start()
    yield second
    second.hang_up()
    if second.process.poll() is None:
        second.stop(signal.SIGKILL)
