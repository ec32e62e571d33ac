"""Starts the gateway: `python -P -m core.gateway`, everything from the environment, everything imported at start."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvloop

from core.gateway.control import LINE_LIMIT, Control
from core.gateway.exchange import Core
from core.gateway.listener import ClientConnection
from core.gateway.routes import Table
from core.gateway.usage import Spool

log = logging.getLogger("gateway")
GRACE_S = 5.0
"""What running answers have to end after SIGTERM."""


def bind(path: Path, mode: int) -> socket.socket:
    """A listening Unix socket that replaces a stale one; a path of any length. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
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


async def serve(folder: Path, listen: Path, launch: str, owner: int) -> None:
    """Serve until SIGTERM or SIGINT."""
    table = Table(folder / "snapshot.json")
    table.load()
    core = Core(table, Spool(folder / "spool", launch), owner=owner)
    control = Control(core)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    server = await loop.create_unix_server(lambda: ClientConnection(core), sock=bind(listen, 0o666))
    control_server = await asyncio.start_unix_server(
        control.serve, sock=bind(folder / "control.sock", 0o600), limit=LINE_LIMIT
    )
    log.info("listens on %s", listen)
    ticking = loop.create_task(control.run())
    try:
        await ending.wait()
        server.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S):
                while core.exchanges:
                    await table.changed.wait()
        for exchange in tuple(core.exchanges):
            exchange.stop()
    finally:
        ticking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await ticking
        control.tick()
        control_server.close()
        core.spool.close()


def main() -> int:
    """Exit codes: 0 ended on request, 2 the environment is wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        folder = Path(os.environ["CORRAL_GATEWAY_DIR"])
        listen = Path(os.environ["CORRAL_GATEWAY_SOCKET"])
        launch = os.environ["CORRAL_GATEWAY_LAUNCH"]
        owner = int(os.environ["CORRAL_GATEWAY_OWNER"])
    except (KeyError, ValueError) as error:
        log.error("the environment lacks or garbles %s", error)
        return 2
    os.umask(0o077)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    uvloop.run(serve(folder, listen, launch, owner))
    return 0


if __name__ == "__main__":
    sys.exit(main())
