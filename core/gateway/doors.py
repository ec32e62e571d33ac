"""The listener for programs: TCP on loopback, on a port that is looked for once and kept."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec

log = logging.getLogger("gateway")

TRIED = 100
"""Ports that are tried from the wanted one on, once; the one that was free is kept for good."""


class Kept(msgspec.Struct, frozen=True):
    """What the file `port` in the gateway's folder says."""

    listen: str
    port: int


def parse(listen: str) -> tuple[str, int]:
    """`127.0.0.1:8620` or `[::1]:8620` as host and port. Raises ValueError with what is wrong."""
    host, _, port = listen.rpartition(":")
    address = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    if not port.isdecimal() or not 1 <= int(port) <= 65535:
        raise ValueError(f"{port!r} is no port")
    if not address.is_loopback:
        raise ValueError(f"{address} is not on loopback: that needs TLS, which this version does not have")
    return str(address), int(port)


class Door:
    """Open or closed as the settings say. `serve` makes the protocol of each connection."""

    def __init__(self, folder: Path, serve: Callable[[], asyncio.Protocol]) -> None:
        self._file = folder / "port"
        self._serve = serve
        self._listen = ""
        self._server: asyncio.Server | None = None
        self.listener: socket.socket | None = None
        self.trouble = ""
        """Why it is closed though it should be open."""

    @property
    def url(self) -> str:
        """The base URL without /v1; "" while it is closed."""
        if self.listener is None:
            return ""
        host, port = self.listener.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def take(self, listener: socket.socket, listen: str) -> None:
        """Go on with what the gateway before has listened on."""
        self._listen = listen
        await self._open(listener)

    async def follow(self, listen: str) -> None:
        """Listen on `listen` ("": nowhere), unless it does already. What goes wrong is `trouble`, tried again at each
        call: connections that are there stay."""
        if listen == self._listen and (self.listener is not None or not listen):
            return
        self.close()
        self._listen, self.trouble = listen, ""
        if not listen:
            return
        try:
            await self._open(self._bind(*parse(listen)))
        except (OSError, ValueError) as error:
            said = f"{listen}: {getattr(error, 'strerror', None) or error}"
            if said != self.trouble:
                log.error("no listener for programs: %s", said)
            self.trouble = said

    async def _open(self, listener: socket.socket) -> None:
        self.listener = listener
        self._server = await asyncio.get_running_loop().create_server(self._serve, sock=listener.dup())
        log.info("serves programs on %s", self.url)

    def _bind(self, host: str, port: int) -> socket.socket:
        """The port that was found once; else the first free one, which is kept. Raises OSError."""
        kept = self._kept()
        if kept is not None:
            return _bound(host, kept)
        for each in range(port, min(port + TRIED, 65536)):
            try:
                listener = _bound(host, each)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            try:
                self._keep(each)
            except OSError:
                listener.close()
                raise
            return listener
        raise OSError(errno.EADDRINUSE, f"no port from {port} to {port + TRIED - 1} is free")

    def _kept(self) -> int | None:
        try:
            found = msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except (OSError, msgspec.DecodeError):
            return None
        return found.port if found.listen == self._listen else None

    def _keep(self, port: int) -> None:
        temporary = self._file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(Kept(self._listen, port)))
        temporary.replace(self._file)

    def stop(self) -> None:
        """Take nobody new; the listener stays open, for whoever it is handed to."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        """Take nobody new, and let the port go."""
        self.stop()
        if self.listener is not None:
            self.listener.close()
            self.listener = None


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(1024)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
