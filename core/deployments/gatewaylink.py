"""The daemon's end of the gateway: starts it under a keeper, sends it snapshots, commits the usage it spooled."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import struct
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from core import program_version
from core.access import Gate
from core.errors import CorralError, Failed
from core.gateway import wire
from core.nodes.base import LaunchOrder, LaunchState, Limits, Node
from core.nouns import CORRAL, GatewayStatus
from core.settings import Paths, Settings
from core.store import Store
from core.telemetry.usage import UsageRow, commit_batch

log = logging.getLogger(__name__)

LINE_LIMIT = 16 << 20
_SHOUT = asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, msgspec.DecodeError


def new_launch_id() -> str:
    """10 characters of 50 random bits."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(alphabet[byte & 31] for byte in secrets.token_bytes(10))


class GatewayLink:
    """Keeps one gateway running and in agreement with the routes that `set_routes` last said."""

    def __init__(
        self,
        node: Node,
        store: Store,
        gate: Gate,
        paths: Paths,
        settings: Callable[[], Settings],
        *,
        allowed: Callable[[], wire.Allowed],
        on_live: Callable[[wire.Live], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._node = node
        self._store = store
        self._gate = gate
        self._paths = paths
        self._settings = settings
        self._allowed = allowed
        self._on_live = on_live
        self._clock = clock
        self._routes: tuple[wire.Route, ...] = ()
        self._epoch = int(clock() * 1000)
        self._n = 0
        self._acknowledged = 0
        self._changed = asyncio.Event()
        self._acks = asyncio.Condition()
        self._writer: asyncio.StreamWriter | None = None
        self._launch: LaunchState | None = None
        self._welcome: wire.Welcome | None = None
        self._live: wire.Live | None = None
        self._state = "starting"

    # ---------------------------------------------------------------------------------------- for callers

    def status(self) -> GatewayStatus:
        live = self._live
        return GatewayStatus(
            state=self._state,
            pid=self._welcome.pid if self._welcome else None,
            version=self._welcome.program if self._welcome else "",
            snapshot=self._n,
            acknowledged=self._acknowledged,
            requests=live.requests if live else 0,
            in_flight=live.in_flight if live else 0,
            spooled=live.spooled if live else 0,
        )

    def set_routes(self, routes: Sequence[wire.Route]) -> int:
        """Say what the gateway shall route; returns the number of the snapshot that will carry it."""
        if tuple(routes) != self._routes:
            self._routes = tuple(routes)
            self.touch()
        return self._n

    def touch(self) -> None:
        """Send the snapshot again (settings or rights have changed)."""
        self._n += 1
        self._changed.set()

    async def acknowledged(self, n: int, timeout: float) -> bool:
        """Wait until snapshot `n` is in force; False after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout), self._acks:
                await self._acks.wait_for(lambda: self._acknowledged >= n)
        except TimeoutError:
            return False
        return True

    def in_flight(self, replica: str) -> int:
        """Requests that the gateway last said are with a replica."""
        for each in self._live.replicas if self._live else ():
            if each.replica == replica:
                return each.in_flight
        return 0

    # ---------------------------------------------------------------------------------------- its life

    async def run(self) -> None:
        """Keep the gateway running and spoken to, until cancelled."""
        pause = 0.1
        while True:
            try:
                await self._ensure()
                await self._talk()
                pause = 0.1
            except (CorralError, TimeoutError, *_SHOUT) as error:
                self._state = "unreachable"
                log.warning("gateway: %s", error or type(error).__name__)
            self._writer = None
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def stop(self) -> None:
        """End the gateway (`corral shutdown --all`)."""
        launch = self._launch
        if launch is None:
            return
        async with asyncio.timeout(15):
            await self._node.signal(launch.id, 15)
            while any(each.id == launch.id and each.alive for each in await self._node.launches()):  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await self._gate.record(CORRAL, "gateway.stop", "gateway:local", launch.id, "done")

    async def _ensure(self) -> None:
        """Adopt the gateway that runs, else start one."""
        mine = [each for each in await self._node.launches() if each.kind == "gateway"]
        living = [each for each in mine if each.alive]
        for each in mine:
            if not each.alive:
                await self._gate.record(
                    CORRAL,
                    "gateway.died",
                    "gateway:local",
                    each.id,
                    "done",
                    reason=each.exit.reason if each.exit and each.exit.reason else "its keeper has gone",
                )
                await self._node.remove(each.id)
        if living:
            self._launch = living[0]
            return
        order = self._order()
        effect = await self._gate.intent(CORRAL, "gateway.start", "gateway:local", order.id)
        try:
            self._launch = await self._node.launch(order)
        except CorralError as error:
            await self._gate.outcome(effect, "failed", reason=str(error))
            raise
        await self._gate.outcome(effect, "done", after={"launch": order.id, "pid": self._launch.pid})

    def _order(self) -> LaunchOrder:
        launch = new_launch_id()
        keep = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "HOME")
        env = {key: os.environ[key] for key in keep if key in os.environ}
        env |= {
            "CORRAL_GATEWAY_DIR": str(self._paths.gateway),
            "CORRAL_GATEWAY_SOCKET": str(self._paths.gateway_socket),
            "CORRAL_GATEWAY_LAUNCH": launch,
            "CORRAL_GATEWAY_OWNER": str(os.getuid()),
            "PYTHONUNBUFFERED": "1",
        }
        replicas = self._settings().replicas
        return LaunchOrder(
            id=launch,
            kind="gateway",
            owner="gateway",
            argv=(sys.executable, "-P", "-m", "core.gateway"),
            env=env,
            limits=Limits(nice=0, oom_score_adj=0, log_bytes=replicas.log_bytes, log_files=replicas.log_files),
            restart=True,
        )

    async def _talk(self) -> None:
        """One conversation on the control socket, until it breaks."""
        reader, writer = await self._connect()
        self._writer = writer
        try:
            self._send(
                wire.Hello(
                    version=wire.WIRE_VERSION, daemon_uid=os.getuid(), daemon_pid=os.getpid(), program=program_version()
                )
            )
            async with asyncio.timeout(10):
                first = await self._receive(reader)
            if not isinstance(first, wire.Welcome):
                raise Failed("the gateway did not welcome the daemon", getattr(first, "reason", ""))
            self._welcome = first
            self._state = "ready"
            self._acknowledged = 0
            self._changed.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._push())
                group.create_task(self._pull(reader))
        except* (*_SHOUT, TimeoutError) as errors:
            raise Failed("the gateway's control socket closed", str(errors.exceptions[0])) from None
        finally:
            self._writer = None
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect and check that the peer has our uid (or the gateway user's)."""
        deadline = asyncio.get_running_loop().time() + 10
        folder = os.open(Path(self._paths.gateway_control).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            while True:
                try:
                    reader, writer = await asyncio.open_unix_connection(
                        f"/proc/self/fd/{folder}/control.sock", limit=LINE_LIMIT
                    )
                    break
                except OSError:
                    if asyncio.get_running_loop().time() > deadline:
                        raise
                    await asyncio.sleep(0.05)
        finally:
            os.close(folder)
        raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("3i", raw)[1]
        if self._paths.mode == "user" and uid != os.getuid():
            writer.close()
            raise Failed("the control socket is another user's", f"its uid is {uid}", "remove the folder and restart")
        return reader, writer

    def _send(self, message: wire.FromDaemon) -> None:
        if self._writer is not None:
            self._writer.write(msgspec.json.encode(message) + b"\n")

    async def _receive(self, reader: asyncio.StreamReader) -> wire.FromGateway:
        return _DECODE.decode(await reader.readuntil(b"\n"))

    async def _push(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            table = self._settings().gateway
            self._send(
                wire.Snapshot(
                    database=self._store.database_id,
                    epoch=self._epoch,
                    n=self._n,
                    routes=self._routes,
                    allowed=self._allowed(),
                    limits=wire.GatewayLimits(
                        queue=table.queue,
                        queue_timeout_s=table.queue_timeout_s,
                        first_byte_timeout_s=table.first_byte_timeout_s,
                        idle_timeout_s=table.idle_timeout_s,
                        body_bytes=table.body_bytes,
                        serve_uncounted=table.when_spool_full == "serve-uncounted",
                    ),
                )
            )
            if self._writer is not None:
                await self._writer.drain()

    async def _pull(self, reader: asyncio.StreamReader) -> None:
        while True:
            message = await self._receive(reader)
            match message:
                case wire.SnapshotAck():
                    if message.database == self._store.database_id and message.epoch == self._epoch:
                        async with self._acks:
                            self._acknowledged = max(self._acknowledged, message.n)
                            self._acks.notify_all()
                case wire.UsageBatch():
                    await self._commit(message)
                case wire.Live():
                    self._live = message
                    self._on_live(message)
                case wire.Refused():
                    log.warning("the gateway refused: %s", message.reason)
                case _:
                    pass

    async def _commit(self, batch: wire.UsageBatch) -> None:
        rows = [UsageRow(x.time, x.deployment, msgspec.json.encode(x).decode()) for x in batch.lines]
        await self._store.transact(lambda db: commit_batch(db, batch.launch, batch.n, rows))
        self._send(wire.UsageAck(launch=batch.launch, n=batch.n))


_DECODE: msgspec.json.Decoder[wire.FromGateway] = msgspec.json.Decoder(wire.FromGateway)
