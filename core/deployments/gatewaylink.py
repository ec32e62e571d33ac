"""The daemon's end of the gateway: speaks with it, sends it snapshots, commits the usage it spooled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from core import program_version
from core.access import Gate
from core.deployments.crowded import Crowded
from core.deployments.doors import DoorRecords, statuses
from core.deployments.gateways import Gateways
from core.deployments.silence import Silence
from core.deployments.snapshots import limits_of, needs
from core.deployments.turnedaway import turned_away
from core.errors import CorralError, Failed
from core.gateway import wire
from core.nodes.base import Node
from core.nouns import GatewayStatus, Key
from core.paths import Paths
from core.peer import peer
from core.settings import Settings
from core.store import Store
from core.telemetry.usage import commit_batch, row_of
from core.telemetry.whose import Whose

log = logging.getLogger(__name__)

LINE_LIMIT = 16 << 20
IN_FORCE_S = 5.0
"""What a change of rules or settings waits for a gateway that is busy."""
LIVE_S = 2.0
"""What somebody who asks waits for a gateway that starts to say where it listens."""
SPENT_S = 2.0
"""What the gateway may take to say what is left of limits."""
RETRY_S = 60.0
"""Between two tries to replace a gateway of another version."""
_SHOUT = asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError, msgspec.DecodeError


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
        self._gateways = Gateways(node, store, gate, paths, settings)
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
        self.ended: Callable[[], tuple[wire.Ended, ...]] = tuple
        self.key_of: Callable[[str], Key | None] = lambda id: None
        """The key with this id, if there is or was one."""
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
        self._silence = Silence(self._known_pid)
        self._reports: dict[str, asyncio.Future[wire.Report]] = {}
        self._not_before = 0.0
        self._whose = Whose()
        self.doors = DoorRecords(store, gate)
        self.crowded = Crowded(lambda: settings().gateway.connections_per_address)
        self._heard = asyncio.Event()
        """It has told where it listens."""

    # ---------------------------------------------------------------------------------------- for callers

    def status(self) -> GatewayStatus:
        live = self._live
        # Welcomed and not told yet what it does: a new daemon said that nothing ran, and nothing was left to commit.
        state = "starting" if live is None and self._state == "ready" else self._state
        return GatewayStatus(
            state="not answering" if self._silence.lasts else state,
            pid=self._known_pid(),
            version=self._welcome.program if self._welcome else "",
            swapped=self._welcome.swapped if self._welcome else None,
            compiled=self._welcome.compiled if self._welcome else None,
            snapshot=self._n,
            acknowledged=self._acknowledged,
            requests=live.requests if live else 0,
            in_flight=live.in_flight if live else 0,
            queued=sum(live.queued.values()) if live else 0,
            spooled=live.spooled if live else 0,
            doors=statuses(live),
            connections_evicted=live.evicted if live else 0,
            connections_refused=live.refused if live else 0,
        )

    @property
    def url(self) -> str:
        """The base URL for programs, without /v1; "" while the gateway does not listen for them."""
        return self._live.listens if self._live else ""

    async def heard(self) -> None:
        """Give a gateway that starts a moment to say where it listens."""
        if self._state == "starting" or (self._state == "ready" and self._live is None):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LIVE_S):
                    await self._heard.wait()

    @property
    def trouble(self) -> str:
        """Why it does not answer though it runs."""
        return self._silence.trouble

    def _known_pid(self) -> int | None:
        return self._welcome.pid if self._welcome else self._pid

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
        """Send the snapshot again, and give the gateway a moment to put it in force."""
        self.touch()
        await self.in_force()

    async def in_force(self) -> None:
        """Give a gateway that answers a moment to put in force what was said to it last: whoever is told that a key is
        made, or revoked, finds it so."""
        if self._state == "ready" and not self._silence.lasts and self._acknowledged < self._n:
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

    def queued(self, turn: str) -> tuple[int, float] | None:
        """As the gateway last said, the place of a turn in its queue, from 1, and the seconds expected there (0: nobody
        knows yet); place 0 for one that has a slot, None where it does not say."""
        places = self._live.places if self._live else None
        return None if places is None else places.get(turn, (0, 0.0))

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
                self._pid = (await self._gateways.ensure()).pid
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
        await self._gateways.stop()

    async def _hand_over(self, path: Path) -> wire.Report:
        return await self._ask(wire.HandOver(socket=str(path)), "handover")

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
                    await self._gateways.replace(self._hand_over)
                except CorralError as error:
                    log.warning("%s", error)
                else:
                    raise _Replaced
            await self._gateways.sweep()
            await asyncio.sleep(2)

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
                self._silence.begin(asked)
                raise
            self._silence.end()
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
                group.create_task(self._silence.watch(self._ask))
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
            keys, limited = self._keys(), self._limited()
            self._send(
                wire.Snapshot(
                    database=self._store.database_id,
                    epoch=self._epoch,
                    n=self._n,
                    routes=self._routes,
                    allowed=self._allowed(),
                    limits=limits_of(self._settings().gateway, self._paths),
                    keys=keys,
                    limited=limited,
                    needs=needs(keys, limited),
                    ended=self.ended(),
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
                    self._heard.set()
                    self._on_live(message)
                    self.crowded.told(message)
                    await self.doors.told(message)
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

    async def _commit(self, batch: wire.UsageBatch) -> None:
        people = await self._whose.of({line.uid for line in batch.lines})
        rows = [row_of(line, people) for line in batch.lines]
        denied = [(each, *await turned_away(each, self.key_of, self._name)) for each in batch.denied]

        def work(db: sqlite3.Connection) -> None:
            if not commit_batch(db, batch.launch, batch.n, rows):
                return
            for each, actor, object in denied:
                often = f" ({each.times} times within {each.last - each.first:.1f} s)" if each.times > 1 else ""
                self._gate.denied(
                    db, actor, "gateway.refused", object, f"{batch.launch}-{batch.n}", each.reason + often,
                    after={"times": each.times, "first": round(each.first, 3), "last": round(each.last, 3)},
                )  # fmt: skip

        await self._store.transact(work)
        self._send(wire.UsageAck(launch=batch.launch, n=batch.n))


async def _uid(uid: int) -> str:
    return f"uid:{uid}"


_DECODE: msgspec.json.Decoder[wire.FromGateway] = msgspec.json.Decoder(wire.FromGateway)
