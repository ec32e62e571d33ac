"""The listeners for programs: TCP, plain or with TLS, each on a port that is looked for once and kept."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from core.gateway import wire
from core.gateway.certificate import Certificate, Watched
from core.gateway.porch import Porch
from core.listen import Listen, split

log = logging.getLogger("gateway")

TRIED = 100
"""Ports that are tried from the wanted one on, once; the one that was free is kept for good."""
UNSPECIFIED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
"""Every address of the host, and one under which it reaches itself."""

Serve = Callable[[], asyncio.Protocol]
"""Makes the protocol of each connection."""


class Kept(msgspec.Struct, frozen=True):
    """What the file `port` in the gateway's folder says: the port that was found for each address. (`listen` and `port`
    are what the release before wrote.)"""

    ports: dict[str, int] = {}
    listen: str = ""
    port: int = 0

    def all(self) -> dict[str, int]:
        return self.ports or ({self.listen: self.port} if self.listen else {})


class Door:
    """One listener. It is open or closed, and with TLS closed without a certificate."""

    def __init__(self, listen: Listen, serve: Serve) -> None:
        self.listen = listen
        self.listener: socket.socket | None = None
        self.trouble = ""
        """Why it is closed though it should be open."""
        self.certificate: Certificate | None = None
        self._serve = serve
        self._server: asyncio.Server | None = None
        self._porch: Porch | None = None

    @property
    def url(self) -> str:
        """The base URL without /v1, under a name that its certificate has; "" while it is closed."""
        if self.listener is None:
            return ""
        host, port = self.listener.getsockname()[:2]
        host = _called(host, self.certificate)
        scheme = "https" if self.listen.tls else "http"
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"

    @property
    def failed(self) -> int:
        """Clients whose handshake failed."""
        return self._porch.failed if self._porch is not None else 0

    async def open(self, listener: socket.socket, certificate: Certificate | None) -> None:
        """Serve on `listener`."""
        self.listener, self.certificate = listener, certificate
        if certificate is not None:
            self._porch = Porch(listener, self._serve, certificate.context)
            self._porch.open()
        else:
            loop = asyncio.get_running_loop()
            self._server = await loop.create_server(self._serve, sock=listener.dup())
        log.info("serves programs on %s", self.url)

    def renew(self, certificate: Certificate) -> None:
        """From now on another certificate; connections that are there go on with theirs."""
        self.certificate = certificate
        if self._porch is not None:
            self._porch.context = certificate.context
            log.info("%s has the certificate %s now", self.url, certificate.fingerprint)

    def stop(self) -> None:
        """Take nobody new; the listener stays open, for whoever it is handed to."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._porch is not None:
            self._porch.close()

    def close(self) -> None:
        """Take nobody new, and let the port go."""
        self.stop()
        if self.listener is not None:
            self.listener.close()
            self.listener = None

    def live(self, certificate_trouble: str) -> wire.DoorLive:
        """What the daemon is told."""
        certificate = self.certificate
        return wire.DoorLive(
            address=self.listen.address, url=self.url, tls=self.listen.tls,
            fingerprint=certificate.fingerprint if certificate else "",
            until=certificate.until if certificate else None,
            trouble=self.trouble or (certificate_trouble if self.listen.tls else ""), failed=self.failed,
        )  # fmt: skip


class Doors:
    """All of them, as the settings say; `follow` is called again and again, and tries again what went wrong."""

    def __init__(self, folder: Path, serve: Serve) -> None:
        self._file = folder / "port"
        self._serve = serve
        self._doors: dict[Listen, Door] = {}
        self._watched = Watched()
        self._said = ""
        self._handed = False

    @property
    def url(self) -> str:
        """The base URL of the first that is open; "" while none is."""
        return next((door.url for door in self._doors.values() if door.listener is not None), "")

    @property
    def trouble(self) -> str:
        """What is wrong with any, in a line."""
        return "; ".join(f"{each.address}: {each.trouble}" for each in self.live() if each.trouble)

    def told(self) -> tuple[wire.DoorLive, ...] | None:
        """What the daemon is told; None once another gateway has them."""
        return None if self._handed else self.live()

    def live(self) -> tuple[wire.DoorLive, ...]:
        """How each is."""
        trouble = self._watched.trouble
        if not trouble and self._watched.expired(time.time()):
            trouble = "its certificate has expired, and clients refuse it"
        return tuple(door.live(trouble) for door in self._doors.values())

    def listeners(self) -> dict[Listen, socket.socket]:
        """Those that are open, for the gateway that comes next."""
        return {listen: door.listener for listen, door in self._doors.items() if door.listener is not None}

    async def take(self, listeners: Mapping[Listen, socket.socket], limits: wire.GatewayLimits) -> None:
        """Go on with what the gateway before has listened on, where the settings still say so."""
        await self._look(limits)
        for listen, listener in listeners.items():
            door = self._doors[listen] = Door(listen, self._serve)
            certificate = self._watched.current if listen.tls else None
            if listen.tls and certificate is None:
                listener.close()
            else:
                await door.open(listener, certificate)

    async def follow(self, limits: wire.GatewayLimits) -> None:
        """Listen where `limits` says and nowhere else. What goes wrong is told by `live`, and tried again at each call;
        connections that are there stay."""
        wanted = _wanted(limits)
        renewed = await self._look(limits)
        for listen in [each for each in self._doors if each not in wanted]:
            self._doors.pop(listen).close()
        self._doors = {listen: self._doors.get(listen) or Door(listen, self._serve) for listen in wanted}
        for listen, door in self._doors.items():
            certificate = self._watched.current if listen.tls else None
            if listen.tls and certificate is None:
                door.close()
                door.trouble = self._watched.trouble
            elif door.listener is None:
                await self._open(door, certificate)
            elif renewed and certificate is not None:
                door.renew(certificate)
        if self.trouble != self._said:
            self._said = self.trouble
            if self._said:
                log.error("listeners for programs: %s", self._said)

    async def _look(self, limits: wire.GatewayLimits) -> bool:
        if limits.files is None or not any(listen.tls for listen in _wanted(limits)):
            self._watched.forget()
            return False
        return await self._watched.look(limits.files)

    async def _open(self, door: Door, certificate: Certificate | None) -> None:
        try:
            await door.open(self._bind(door.listen.address), certificate)
        except OSError as error:
            door.trouble = error.strerror or str(error)
        else:
            door.trouble = ""

    def _bind(self, address: str) -> socket.socket:
        """The port that was found once; else the first free one, which is kept. Raises OSError."""
        host, port = split(address)
        kept = self._kept()
        if address in kept:
            return _bound(host, kept[address])
        for each in range(port, min(port + TRIED, 65536)):
            try:
                listener = _bound(host, each)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                continue
            try:
                self._keep({**kept, address: each})
            except OSError:
                listener.close()
                raise
            return listener
        raise OSError(errno.EADDRINUSE, f"no port from {port} to {port + TRIED - 1} is free")

    def _kept(self) -> dict[str, int]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=Kept).all()
        except (OSError, msgspec.DecodeError):
            return {}

    def _keep(self, ports: dict[str, int]) -> None:
        temporary = self._file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(Kept(ports=ports)))
        temporary.replace(self._file)

    def hand_over(self) -> None:
        """Another gateway has them now."""
        self._handed = True
        self.close()

    def close(self) -> None:
        """Take nobody new, and let the ports go."""
        for door in self._doors.values():
            door.close()


def _wanted(limits: wire.GatewayLimits) -> tuple[Listen, ...]:
    """A snapshot of one release back names one address."""
    return limits.doors or ((Listen(limits.listen),) if limits.listen else ())


def _called(host: str, certificate: Certificate | None) -> str:
    """What a client on this host calls an address; with TLS so that it finds it in the certificate."""
    if certificate is None:
        return UNSPECIFIED.get(host, host)
    if host not in UNSPECIFIED and host in certificate.addresses:
        return host
    if host in UNSPECIFIED and "localhost" in certificate.names:
        return "localhost"
    name = next((each for each in certificate.names if "*" not in each), "")
    return name or UNSPECIFIED.get(host, host)


def _bound(host: str, port: int) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if made.family == socket.AF_INET6:
            # Else IPv4 clients come as ::ffff:10.0.0.1, which no network of a key contains.
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((host, port))
        made.listen(1024)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made
