"""The control socket: the daemon's snapshots and acknowledgements in, usage and live figures out."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Awaitable, Callable

import msgspec

from core import program_version
from core.gateway import listener, wire
from core.gateway.alone import Alone
from core.gateway.core import Core
from core.gateway.doors import Doors
from core.gateway.handover import Wrong
from core.peer import peer

log = logging.getLogger("gateway")

LINE_LIMIT = 16 << 20
TICK_S = 1.0
"""So much of what was counted may be lost with this process, and so old may the daemon's figures be."""
WINDOW = 64
"""Batches that may be on their way unacknowledged."""
COMPILED = not listener.__file__.endswith(".py")
"""What each request goes through is machine code: docs/gateway.md tells how."""

_DECODE: msgspec.json.Decoder[wire.FromDaemon] = msgspec.json.Decoder(wire.FromDaemon)


class Control:
    """Speaks with one daemon at a time; the newest connection wins."""

    def __init__(
        self, core: Core, hand_over: Callable[[str], Awaitable[None]], doors: Doors, swapped: str = ""
    ) -> None:
        self._core = core
        self._doors = doors
        self._swapped = swapped
        self._told: dict[str, float] = {}
        """When each key was used last, as the daemon knows it."""
        self._hand_over = hand_over
        self._writer: asyncio.StreamWriter | None = None
        self._alone = Alone(core.spool.folder.parent / "daemon.seen")
        self._carried: dict[str, int] = {}
        self._last_live: wire.Live | None = None
        self._group: asyncio.TaskGroup | None = None
        self._conversations: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}

    async def run(self) -> None:
        """Write the spool and tell the daemon what changed, each TICK_S, until cancelled. A disk that is slow to sync
        delays none of it: what was written outlives a kill of this process, and no more than a second may be lost."""
        syncing: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            self._group = group
            while True:
                await asyncio.sleep(TICK_S)
                self.tick()
                if syncing is None or syncing.done():
                    syncing = group.create_task(self._sync())

    async def _sync(self) -> None:
        try:
            await asyncio.to_thread(self._core.spool.sync)
        except OSError as error:
            log.error("the usage spool does not reach the disk: %s", error.strerror)

    def tick(self) -> None:
        core = self._core
        limits, alone_s = core.table.limits, self._alone.look(self._writer is not None)
        core.alone = alone_s > limits.alone_s and not limits.serve_alone
        core.tell_denials()
        core.flush()
        if not core.retired:  # else the one that serves writes it
            core.keep.write()
        core.spool.adopt()
        core.turns.prune()
        core.sweep()
        for seat in core.table.seats.values():
            seat.pool.prune()
        self._send_usage()
        live = self._live()
        if (live.in_flight or live != self._last_live) and self._writer is not None:
            self._last_live = live
            self._send(live)
            self._told |= live.used

    def _live(self) -> wire.Live:
        core = self._core
        seats = core.table.living()
        used, sources = core.table.keys.seen()
        places = core.table.places()
        return wire.Live(
            requests=core.requests,
            in_flight=sum(seat.busy for seat in seats),
            queued={name: len(target.queue) for name, target in core.table.targets.items() if target.queue},
            replicas=tuple(
                wire.RouteLive(
                    replica=seat.route.id,
                    in_flight=seat.busy,
                    requests=seat.requests,
                    errors=seat.errors,
                    ttft_ms=seat.ttft_ms,
                    tokens=seat.tokens,
                )
                for seat in seats
            ),
            connections=len(core.clients),
            spooled=len(core.spool),
            waiting=tuple(places),
            places=places,
            listens=self._doors.url,
            trouble=self._doors.trouble,
            doors=self._doors.told(),
            evicted=core.places.evicted,
            refused=core.places.refused,
            crowded=core.places.last,
            used={id: at for id, at in used.items() if self._told.get(id) != at},
            sources={id: source for id, source in sources.items() if self._told.get(id) != used[id]},
        )

    def _send(self, message: wire.FromGateway) -> None:
        if self._writer is not None:
            self._writer.write(msgspec.json.encode(message) + b"\n")

    def _send_usage(self) -> None:
        """Send the batches that this connection has not carried yet, in order."""
        if self._writer is None:
            return
        for launch, n, data in itertools.islice(self._core.spool.batches(), WINDOW):
            if n > self._carried.get(launch, 0):
                self._carried[launch] = n
                self._writer.write(data + b"\n")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it closes or errs."""
        self._conversations[writer] = asyncio.current_task()
        uid = peer(writer.get_extra_info("socket")).uid
        try:
            if uid not in (self._core.owner, 0):
                writer.write(msgspec.json.encode(wire.Refused(reason=f"uid {uid} is not the daemon's")) + b"\n")
                return
            while True:
                line = await reader.readuntil(b"\n")
                try:
                    message = _DECODE.decode(line)
                except msgspec.DecodeError as error:
                    writer.write(msgspec.json.encode(wire.Refused(reason=f"not understood: {error}")) + b"\n")
                    continue
                await self._obey(message, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, OSError):
            return
        finally:
            if self._writer is writer:
                self._writer = None
            del self._conversations[writer]
            writer.close()

    async def close(self) -> None:
        """Hang up, and wait until the conversations have ended."""
        tasks = [task for task in self._conversations.values() if task is not None]
        for writer in self._conversations:
            writer.close()
        if tasks:
            await asyncio.wait(tasks, timeout=1)

    async def _obey(self, message: wire.FromDaemon, writer: asyncio.StreamWriter) -> None:
        core = self._core
        if isinstance(message, wire.Hello):
            self._hello(message, writer)
            return
        if self._writer is not writer:
            writer.write(msgspec.json.encode(wire.Refused(reason="say Hello first")) + b"\n")
            return
        match message:
            case wire.Snapshot():
                reason = await core.table.apply(message)
                if reason:
                    self._send(wire.Refused(reason=reason))
                else:
                    await self._doors.follow(core.table.limits)
                    core.obey()
                    # The figures first: from the acknowledgement on a withdrawn replica gets nothing that they lack.
                    self._last_live = live = self._live()
                    self._send(live)
                    self._told |= live.used
                    self._send(wire.SnapshotAck(database=message.database, epoch=message.epoch, n=message.n))
            case wire.UsageAck():
                core.spool.acknowledge(message.launch, message.n)
                self._send_usage()
            case wire.HandOver():
                if self._group is not None:
                    self._group.create_task(self._replace(message))
            case wire.Ask():
                spent = core.table.subjects.spent(message) if message.what == "spent" else ()
                known = message.what in ("ping", "spent")
                self._send(wire.Report(what=message.what, request=message.request, ok=known, spent=spent))

    def _hello(self, message: wire.Hello, writer: asyncio.StreamWriter) -> None:
        if message.version not in (wire.WIRE_VERSION, wire.WIRE_VERSION + 1):
            reason = f"this gateway speaks version {wire.WIRE_VERSION}, the daemon {message.version}"
            writer.write(msgspec.json.encode(wire.Refused(reason=reason)) + b"\n")
            return
        if self._writer is not None and self._writer is not writer:
            self._writer.close()
        self._writer = writer
        self._core.alone = False
        self._carried = {}
        self._last_live = None
        self._told = {}
        spool, snapshot = self._core.spool, self._core.table.snapshot
        self._send(
            wire.Welcome(
                version=wire.WIRE_VERSION,
                launch=spool.launch,
                pid=os.getpid(),
                program=program_version(),
                database=snapshot.database,
                epoch=snapshot.epoch,
                n=snapshot.n,
                usage_from=spool.first,
                usage_to=spool.n,
                swapped=self._swapped,
                compiled=COMPILED,
            )
        )
        self._send_usage()

    async def _replace(self, message: wire.HandOver) -> None:
        try:
            await self._hand_over(message.socket)
        except (OSError, TimeoutError, Wrong) as error:
            reason = str(error) or "the new gateway did not answer in time"
            self._send(wire.Report(what="handover", ok=False, reason=reason))
        else:
            self._send(wire.Report(what="handover"))
