"""The daemon's end of the gateway: starts it under a keeper, sends it snapshots, commits the usage it spooled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from core import program_version
from core.access import Gate
from core.deployments import tables
from core.deployments.doors import DoorRecords, files_of, for_the_one_before, statuses
from core.deployments.ending import signal_name
from core.errors import CorralError, Failed
from core.gateway import wire
from core.nodes.base import ExitRecord, LaunchOrder, LaunchState, Limits, Node
from core.nouns import CORRAL, Actor, GatewayStatus
from core.peer import peer
from core.settings import Paths, Settings
from core.store import Store
from core.telemetry.usage import commit_batch, row_of
from core.telemetry.whose import Whose

log = logging.getLogger(__name__)

LINE_LIMIT = 16 << 20
STOP_S = 15.0
"""From SIGTERM on, in which it closes its listeners and ends its streams."""
REPLACE_S = 20.0
"""What a new gateway may take to start and to be handed the listener."""
IN_FORCE_S = 2.0
"""What `corral reload` waits for the gateway."""
PING_S = 2.0
"""Between two questions whether it is there: who is stopped keeps its socket."""
SILENT_S = 5.0
"""Without an answer for so long, it is said to be not answering."""
SPENT_S = 2.0
"""What the gateway may take to say what is left of limits."""
RETRY_S = 60.0
"""Between two tries to replace a gateway of another version."""
_SHOUT = asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, msgspec.DecodeError


def new_launch_id() -> str:
    """10 characters of 50 random bits."""
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    return "".join(alphabet[byte & 31] for byte in secrets.token_bytes(10))


class _Replaced(Exception):
    """Another gateway serves now: speak with that one."""


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
        keys: Callable[[], tuple[wire.Key, ...]] = tuple,
        limited: Callable[[], tuple[wire.Limited, ...]] = tuple,
        on_live: Callable[[wire.Live], None],
        gateway_uid: int | None = None,
        clock: Callable[[], float] = time.time,
        name: Callable[[int], Awaitable[str]] | None = None,
    ) -> None:
        self._node = node
        self._uid = os.getuid() if gateway_uid is None else gateway_uid
        self._store = store
        self._gate = gate
        self._paths = paths
        self._settings = settings
        self._allowed = allowed
        self._keys = keys
        self._limited = limited
        self.on_used: Callable[[dict[str, float], dict[str, str]], None] | None = None
        """Told when keys were used (epoch seconds) and from where."""
        self._on_live = on_live
        self._clock = clock
        self._name = name or _uid
        self._routes: tuple[wire.Route, ...] = ()
        self._epoch = int(clock() * 1000)
        self._n = 0
        self._acknowledged = 0
        self._changed = asyncio.Event()
        self._acks = asyncio.Condition()
        self._writer: asyncio.StreamWriter | None = None
        self._welcome: wire.Welcome | None = None
        self._live: wire.Live | None = None
        self._state = "starting"
        self._pid: int | None = None
        self._silent = 0.0
        """Since when (on the loop's clock) it has not answered; 0: it does."""
        self._reports: dict[str, asyncio.Future[wire.Report]] = {}
        self._not_before = 0.0
        self._whose = Whose()
        self._doors = DoorRecords(store, gate)
        self._runs: dict[str, int] = {}
        """Of each launch: the runs whose deaths are recorded, and the one that runs."""

    # ---------------------------------------------------------------------------------------- for callers

    def status(self) -> GatewayStatus:
        live = self._live
        return GatewayStatus(
            state="not answering" if self._silent else self._state,
            pid=self._welcome.pid if self._welcome else self._pid,
            version=self._welcome.program if self._welcome else "",
            swapped=self._welcome.swapped if self._welcome else None,
            snapshot=self._n,
            acknowledged=self._acknowledged,
            requests=live.requests if live else 0,
            in_flight=live.in_flight if live else 0,
            queued=sum(live.queued.values()) if live else 0,
            spooled=live.spooled if live else 0,
            doors=statuses(live),
        )

    @property
    def url(self) -> str:
        """The base URL for programs, without /v1; "" while the gateway does not listen for them."""
        return self._live.listens if self._live else ""

    @property
    def trouble(self) -> str:
        """Why it does not answer though it runs."""
        if self._silent:
            seconds, pid = asyncio.get_running_loop().time() - self._silent, self.status().pid
            return (
                f"its process {pid} has not answered for {seconds:.0f} s: it is stopped (`kill -CONT {pid}` lets it go"
                " on) or has too much to do"
            )
        return ""

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

    async def renew(self) -> None:
        """Send the snapshot again, and give a gateway that answers a moment to put it in force."""
        self.touch()
        if self._state == "ready":
            await self.acknowledged(self._n, IN_FORCE_S)

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
        told = self._live.replicas if self._live else ()
        return sum(each.in_flight for each in told if each.replica == replica)

    def queued(self, turn: str) -> bool | None:
        """Whether the gateway last said that a turn has no slot yet; None if it does not say."""
        waiting = self._live.waiting if self._live else None
        return None if waiting is None else turn in waiting

    async def spent(
        self, subjects: tuple[str, ...], uid: int | None, groups: tuple[int, ...]
    ) -> tuple[wire.Spent, ...] | None:
        """What these subjects, and a person, have used of their limits; None if no gateway says it in time."""
        request = secrets.token_hex(4)
        asked = wire.Ask(what="spent", request=request, subjects=subjects, uid=uid, groups=groups)
        try:
            async with asyncio.timeout(SPENT_S):
                report = await self._ask(asked, request)
        except TimeoutError:
            return None
        return report.spent if report.ok else None

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
            except Exception:
                self._state = "unreachable"
                log.exception("an error of ours in the conversation with the gateway; it is begun anew")
            self._writer = None
            await asyncio.sleep(pause)
            pause = min(5.0, pause * 2)

    async def stop(self) -> None:
        """End the gateway, and one before it that still ends its streams (`corral shutdown --all`)."""
        living = [each.id for each in await self._mine() if each.alive]
        effects = [await self._gate.intent(CORRAL, "gateway.stop", "gateway:local", launch) for launch in living]
        for launch in living:
            await self._node.signal(launch, 15)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                while any(each.alive for each in await self._mine()):  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
        left = {each.id for each in await self._mine() if each.alive}
        for launch, effect in zip(living, effects, strict=True):
            if launch in left:
                reason = f"it has not ended within {STOP_S:.0f} s"
                log.error("the gateway of launch %s runs on: %s", launch, reason)
                await self._gate.outcome(effect, "failed", reason=reason)
            else:
                await self._gate.outcome(effect, "done")

    async def _mine(self) -> list[LaunchState]:
        return [each for each in await self._node.launches() if each.kind == "gateway"]

    async def _ensure(self) -> None:
        """Adopt the gateway that runs, else start one."""
        await self._sweep()
        living = [each for each in await self._mine() if each.alive]
        self._pid = (living[-1] if living else await self._start("gateway.start")).pid

    async def _sweep(self) -> None:
        """Record the gateways that have ended, those that their keeper has started again too; remove the former."""
        for each in await self._mine():
            if each.alive:
                await self._restarted(each)
                continue
            asked = each.exit is not None and each.exit.code == 0
            reason = each.exit.reason if each.exit and each.exit.reason else "its keeper has gone"
            await self._gate.record(
                CORRAL, "gateway.ended" if asked else "gateway.died", "gateway:local", each.id, "done",
                reason="it ended its last stream or was told to end" if asked else reason,
            )  # fmt: skip
            await self._node.remove(each.id)

    async def _restarted(self, launch: LaunchState) -> None:
        """Record the deaths that a keeper answered by itself, each once, whichever daemon sees them first."""
        known = self._runs.get(launch.id, launch.runs if launch.runs == 1 else None)
        if known is None:
            known = 1 + await self._store.read(lambda db: tables.gateway_deaths(db, launch.id))
        exit = launch.before or ExitRecord(reason="its keeper does not say how")
        died = signal_name(exit.signal) or (f"exit code {exit.code}" if exit.code is not None else exit.reason)
        for run in range(known, launch.runs):
            how = died if run == launch.runs - 1 else "while no daemon was there"
            reason = f"{how}; its keeper has started it again"
            await self._gate.record(
                CORRAL, "gateway.died", "gateway:local", launch.id, "done", reason=reason,
                after={"launch": launch.id, "run": run, "pid": launch.pid},
            )  # fmt: skip
        self._runs[launch.id] = max(known, launch.runs)

    async def _start(self, verb: str) -> LaunchState:
        """Start a gateway: the first one serves, a second one waits to be handed the listener."""
        order = self._order()
        effect = await self._gate.intent(CORRAL, verb, "gateway:local", order.id)
        try:
            launch = await self._node.launch(order)
        except CorralError as error:
            await self._gate.outcome(effect, "failed", reason=str(error))
            raise
        if verb == "gateway.replace":
            try:
                await self._hand_over(launch)
            except (CorralError, TimeoutError) as error:
                await self._node.signal(launch.id, 15)
                reason = str(error) or f"it took longer than {REPLACE_S:.0f} s"
                await self._gate.outcome(effect, "failed", reason=reason)
                raise Failed("the gateway was not replaced", reason, "the old one serves on") from None
        await self._gate.outcome(effect, "done", after={"launch": order.id, "pid": launch.pid})
        return launch

    async def _hand_over(self, launch: LaunchState) -> None:
        """Have the gateway that serves hand its listener to `launch`."""
        path = self._paths.gateway / f"next-{launch.id}.sock"
        async with asyncio.timeout(REPLACE_S):
            while not path.exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            report = await self._ask(wire.HandOver(socket=str(path)), "handover")
        if not report.ok:
            raise Failed("the gateway did not hand over", report.reason)

    async def _ask(self, message: wire.FromDaemon, what: str) -> wire.Report:
        """Send a line that is answered with a `Report`; the caller has a time-out. Without a conversation, or when it
        breaks off, the answer is no."""
        if self._writer is None:
            return wire.Report(what=what, ok=False, reason="no gateway answers")
        answer: asyncio.Future[wire.Report] = asyncio.get_running_loop().create_future()
        self._reports[what] = answer
        self._send(message)
        try:
            return await answer
        finally:
            self._reports.pop(what, None)

    async def _tend(self) -> None:
        """Replace a gateway of another version; see those out that were replaced."""
        while True:
            old = self._welcome.program if self._welcome else ""
            now = asyncio.get_running_loop().time()
            if old != program_version() and now >= self._not_before:
                self._not_before = now + RETRY_S
                try:
                    await self._start("gateway.replace")
                except CorralError as error:
                    log.warning("%s", error)
                else:
                    raise _Replaced
            await self._sweep()
            await asyncio.sleep(2)

    async def _listen(self) -> None:
        """Ask it again and again whether it is there, and say so when it is not."""
        while True:
            await asyncio.sleep(PING_S)
            asked = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(SILENT_S):
                    await self._ask(wire.Ask(what="ping", request=""), "ping")
                self._silent = 0.0
            except TimeoutError:
                self._mute(asked)

    def _mute(self, since: float) -> None:
        if not self._silent:
            self._silent = since
            log.warning("gateway: %s", self.trouble)

    def _order(self) -> LaunchOrder:
        launch = new_launch_id()
        keep = ("PATH", "LANG", "LC_ALL", "TZ", "PYTHONPATH")
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
        broken: BaseException | None = None
        try:
            self._send(
                wire.Hello(
                    version=wire.WIRE_VERSION, daemon_uid=os.getuid(), daemon_pid=os.getpid(), program=program_version()
                )
            )
            asked = asyncio.get_running_loop().time()
            try:
                async with asyncio.timeout(10):
                    first = await self._receive(reader)
            except TimeoutError:
                self._mute(asked)
                raise
            self._silent = 0.0
            if not isinstance(first, wire.Welcome):
                raise Failed("the gateway did not welcome the daemon", getattr(first, "reason", ""))
            self._welcome = first
            if first.database == self._store.database_id:
                # The clock may have been set back since the daemon before this one: ours must still win.
                self._epoch = max(self._epoch, first.epoch + 1)
            self._state = "ready"
            self._acknowledged = 0
            self._changed.set()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._push())
                group.create_task(self._pull(reader))
                group.create_task(self._tend())
                group.create_task(self._listen())
        except* _Replaced:
            log.info("the gateway was replaced by one of version %s", program_version())
        except* (CorralError, *_SHOUT, TimeoutError) as errors:
            # Also when usage could not be stored: it is not acknowledged, so the gateway sends it again.
            broken = errors.exceptions[0]
        finally:
            self._writer = None
            writer.close()
            for waiting in self._reports.values():
                if not waiting.done():
                    waiting.set_result(wire.Report(what="", ok=False, reason="the conversation broke off"))
        if broken is not None:  # raised in there it would be a group, which nobody catches
            raise Failed("the conversation with the gateway broke off", str(broken))

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
        uid = peer(writer.get_extra_info("socket")).uid
        if uid != self._uid:
            writer.close()
            raise Failed(
                "the gateway's control socket is another user's", f"its uid is {uid}, not {self._uid}",
                f"find out who made it, remove {self._paths.gateway} and start again",
            )  # fmt: skip
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
            keys, limited = self._keys(), self._limited()
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
                        request_timeout_s=table.request_timeout_s,
                        body_bytes=table.body_bytes,
                        serve_uncounted=table.when_spool_full == "serve-uncounted",
                        listen=for_the_one_before(table),
                        doors=table.listens(),
                        files=files_of(table, self._paths),
                        connections_per_address=table.connections_per_address,
                        connections_per_key=table.connections_per_key,
                    ),
                    keys=keys,
                    limited=limited,
                    needs=("limits",) if limited or any(map(_beyond, keys)) else (),
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
                    await self._doors.told(message)
                    if message.used and self.on_used is not None:
                        self.on_used(message.used, message.sources)
                case wire.Report():
                    waiting = self._reports.get(message.request or message.what)
                    if waiting is not None and not waiting.done():
                        waiting.set_result(message)
                case wire.Refused():
                    log.warning("the gateway refused: %s", message.reason)
                case _:
                    pass

    async def _turned_away(self, uid: int) -> Actor:
        name = "several" if uid == wire.SEVERAL else await self._name(uid)
        return Actor(uid=uid, name=name, through="gateway")

    async def _commit(self, batch: wire.UsageBatch) -> None:
        people = await self._whose.of({line.uid for line in batch.lines})
        rows = [row_of(line, people) for line in batch.lines]
        denied = [(each, await self._turned_away(each.uid)) for each in batch.denied]

        def work(db: sqlite3.Connection) -> None:
            if not commit_batch(db, batch.launch, batch.n, rows):
                return
            for each, actor in denied:
                often = f" ({each.times} times within {each.last - each.first:.1f} s)" if each.times > 1 else ""
                self._gate.denied(
                    db, actor, "gateway.refused", "gateway:local", f"{batch.launch}-{batch.n}", each.reason + often,
                    after={"times": each.times, "first": round(each.first, 3), "last": round(each.last, 3)},
                )  # fmt: skip

        await self._store.transact(work)
        self._send(wire.UsageAck(launch=batch.launch, n=batch.n))


def _beyond(key: wire.Key) -> bool:
    """Has it limits that a gateway of one release back does not know?"""
    limits = key.limits
    known = wire.Limits(
        rpm=limits.rpm, tpm=limits.tpm, concurrency=limits.concurrency, daily_tokens=limits.daily_tokens
    )
    return limits != known


async def _uid(uid: int) -> str:
    return f"uid:{uid}"


_DECODE: msgspec.json.Decoder[wire.FromGateway] = msgspec.json.Decoder(wire.FromGateway)
