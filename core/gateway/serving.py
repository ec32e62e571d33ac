"""A gateway's life: make the listener or take it from the gateway before, serve, hand it on or end."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.gateway import wire
from core.gateway.control import LINE_LIMIT, Control
from core.gateway.core import Core
from core.gateway.doors import Doors
from core.gateway.handover import Predecessor, Successor, Wrong
from core.gateway.listener import serve
from core.gateway.rest import REST_S
from core.gateway.routes import Table
from core.gateway.upstream import Pool
from core.gateway.usage import Spool
from core.listen import Listen

log = logging.getLogger("gateway")

GRACE_S = 5.0
"""What running answers have to end after SIGTERM."""
KEEP: dict[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
"""Since 3.13 a loop looks up a listener's path and removes it at its end: ours was renamed, or handed over, by then."""
GUARD_S = 2.0
"""Between two looks whether the sockets are still there."""
FEW = 40
"""Keys whose use has room in the first line of a hand-over."""
WAIT_S = 30.0
"""How long a gateway that finds another one serving waits to be handed the listener."""


def bind(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket that replaces a stale one; a path of any length. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name = f"/proc/self/fd/{folder}/.{os.getpid()}.{path.name[:40]}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)  # noqa: PTH108
        sock.bind(name)
        os.chmod(name, mode)  # noqa: PTH101
        sock.listen(1024)
        sock.setblocking(False)
        os.rename(name, f"/proc/self/fd/{folder}/{path.name}")  # noqa: PTH104
    except OSError:
        sock.close()
        raise
    finally:
        os.close(folder)
    return sock


class Serving:
    """One gateway. Which one serves is who holds the lock `serving.lock`; it travels with the listener, so that
    there is never a moment with two or with none."""

    def __init__(self, folder: Path, listen: Path, launch: str, owner: int, swapped: str = "") -> None:
        self._folder = folder
        self._listen = listen
        self._launch = launch
        self._core = Core(Table(folder / "snapshot.json"), Spool(folder / "spool", launch), owner=owner)
        self._doors = Doors(folder, lambda: serve(self._core))
        self._control = Control(self._core, self._hand_over, self._doors, swapped)
        self._lock = os.open(folder / "serving.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._ending = asyncio.Event()
        self._successor: Successor | None = None
        self._listener: socket.socket | None = None

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or the last stream after a hand-over. Raises OSError when it cannot listen."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ending.set)
        try:
            if self._serves():
                self._clean()
                await self._serve(bind(self._listen, 0o666), None)
            else:
                log.info("another gateway serves; waiting to be handed its listener")
                predecessor = await self._wait()
                if predecessor is not None:
                    os.close(self._lock)
                    self._lock = predecessor.lock
                    await self._serve(predecessor.listener, predecessor)
        finally:
            self._core.spool.close()

    def _serves(self) -> bool:
        """Take the lock of the one that serves, if it is free."""
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _clean(self) -> None:
        """Nobody else lives here: remove the sockets that dead gateways left."""
        for pattern in ("next-*.sock", "turns-*.sock"):
            for each in self._folder.glob(pattern):
                each.unlink(missing_ok=True)

    async def _wait(self) -> Predecessor | None:
        """The gateway that hands over; None when none did in time or we were told to end."""
        path = self._folder / f"next-{self._launch}.sock"
        waiting = bind(path, 0o600)
        ending = asyncio.create_task(self._ending.wait())
        taking = asyncio.create_task(Predecessor.take(waiting))
        try:
            await asyncio.wait({ending, taking}, timeout=WAIT_S, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
            log.info("nobody handed over; ending")
        except (OSError, TimeoutError, Wrong) as error:
            log.error("the hand-over failed: %s", error)
        finally:
            for task in (ending, taking):
                task.cancel()
            await asyncio.gather(ending, taking, return_exceptions=True)
            waiting.close()
            path.unlink(missing_ok=True)
        return None

    async def _serve(self, listener: socket.socket, predecessor: Predecessor | None) -> None:
        loop, core = asyncio.get_running_loop(), self._core
        core.table.load()
        core.spool.adopt()
        if predecessor is not None and not predecessor.handed.kept:  # one of the release before
            core.table.subjects.restore({f"key:{id}": use for id, use in predecessor.handed.keys.items()})
        else:
            core.keep.load()
        await self._listen_on(listener)
        if predecessor is not None:
            await self._doors.take(predecessor.doors, core.table.limits)
        await self._doors.follow(core.table.limits)
        await self._listen_for_daemon()
        log.info("serves on %s", self._listen)
        ticking = loop.create_task(self._control.run())
        guarding = loop.create_task(self._guard())
        following: asyncio.Task[None] | None = None
        if predecessor is not None:
            core.elsewhere = Pool(f"unix:{predecessor.handed.turns}")
            following = loop.create_task(self._follow(predecessor))
        try:
            await self._ending.wait()
            if self._successor is None:
                await self._drain()
            else:
                await self._retire(self._successor, following)
        finally:
            for task in (ticking, guarding, following):
                if task is not None:
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
            core.tell_denials(all=True)
            self._control.tick()
            self._control_server.close()
            await self._control.close()

    async def _listen_on(self, listener: socket.socket) -> None:
        core = self._core
        self._listener = listener
        self._server = await asyncio.get_running_loop().create_unix_server(
            lambda: serve(core), sock=listener.dup(), **KEEP
        )

    async def _listen_for_daemon(self) -> None:
        self._control_server = await asyncio.start_unix_server(
            self._control.serve, sock=bind(self._folder / "control.sock", 0o600), limit=LINE_LIMIT, **KEEP
        )

    async def _guard(self) -> None:
        """Make a socket again that somebody removed: nobody new could come, and nothing would say why."""
        while True:
            await asyncio.sleep(GUARD_S)
            if self._successor is not None:
                return
            try:
                if not self._listen.exists():
                    log.warning("%s was removed; it is made again", self._listen)
                    made = bind(self._listen, 0o666)
                    self._server.close()
                    if self._listener is not None:
                        self._listener.close()
                    await self._listen_on(made)
                await self._doors.follow(self._core.table.limits)
                if not (self._folder / "control.sock").exists():
                    self._control_server.close()
                    await self._listen_for_daemon()
            except OSError as error:
                log.error("a socket could not be made again: %s", error)

    async def _follow(self, predecessor: Predecessor) -> None:
        def hold(busy: wire.Busy) -> None:
            self._core.table.hold(busy.in_flight)
            subjects = self._core.table.subjects
            if busy.held or not (busy.keys or busy.settled):
                subjects.beside(busy.held)
            else:
                subjects.beside_older(busy.keys, busy.settled)

        await predecessor.follow(hold)
        self._core.elsewhere = None

    async def _drain(self) -> None:
        """SIGTERM: nothing new, and a while for what runs."""
        self._server.close()
        self._doors.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while self._core.exchanges:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
        for exchange in tuple(self._core.exchanges):
            exchange.stop()
        with contextlib.suppress(TimeoutError):  # what the engines made of these
            async with asyncio.timeout(REST_S + 0.5):
                while self._core.exchanges:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

    async def _hand_over(self, path: str) -> None:
        """Hand on to the gateway at `path`. Raises OSError, TimeoutError or `Wrong`: then all is as before."""
        if self._successor is not None or self._listener is None:
            raise Wrong("it was handed over before")
        turns = self._folder / f"turns-{self._launch}.sock"
        core, doors = self._core, self._doors.listeners()
        subjects = core.table.subjects
        kept = core.keep.write(whole=True)
        subjects.hand_over(True)  # what differs from now on is told to the other one
        handed = wire.Handed(
            version=wire.WIRE_VERSION, launch=self._launch, turns=str(turns),
            listens=_for_the_one_before(doors), doors=tuple(doors), keys=_few(subjects.uses), kept=kept,
        )  # fmt: skip
        private = await asyncio.get_running_loop().create_unix_server(
            lambda: serve(core), sock=bind(turns, 0o600), **KEEP
        )
        try:
            self._successor = await Successor.give(path, handed, (self._listener, *doors.values()), self._lock)
        except BaseException:
            subjects.hand_over(False)
            private.close()
            turns.unlink(missing_ok=True)
            raise
        self._private, self._turns_path = private, turns
        self._server.close()
        self._control_server.close()
        self._listener.close()
        self._doors.hand_over()
        os.close(self._lock)
        log.info("handed over; ending what runs")
        self._ending.set()

    async def _retire(self, successor: Successor, following: asyncio.Task[None] | None) -> None:
        """End what runs while the successor serves; turns are kept for whoever comes back for them."""
        core = self._core
        core.retire()

        def tell() -> None:
            seats = core.table.living()
            held = core.table.subjects.in_flight()
            keys = {id[4:]: each.requests for id, each in held.items() if id.startswith("key:") and each.requests}
            in_flight = {f"{x.route.id} {x.route.launch}": x.busy for x in seats if x.busy}
            successor.tell(wire.Busy(in_flight=in_flight, keys=keys, held=held))

        try:
            while core.exchanges or core.turns or (following is not None and not following.done()):
                tell()
                await asyncio.sleep(0.2)
        finally:
            tell()  # what the last ones came to
            self._private.close()
            self._turns_path.unlink(missing_ok=True)
            core.tell_denials(all=True)
            core.flush()
            successor.close()


def _few(uses: dict[str, wire.Use]) -> dict[str, wire.Use]:
    """What keys have used of their day, for a gateway of one release back: as many as its first line has room for."""
    keys = {id[4:]: use for id, use in uses.items() if id.startswith("key:") and use.tokens}
    return {id: wire.Use(day=use.day, tokens=use.tokens) for id, use in list(keys.items())[:FEW]}


def _for_the_one_before(doors: Mapping[Listen, socket.socket]) -> str:
    """What a successor of one release back is told, which takes one listener and would serve plain HTTP on it."""
    return "".join(each.address for each in doors if not each.tls) if len(doors) == 1 else ""
