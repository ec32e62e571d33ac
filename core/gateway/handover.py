"""From a gateway to its successor: the listener and the lock of the one that serves, as descriptors; then what is
still in flight, each second, until the old one has ended its last stream.

The successor waits at `next-<launch>.sock`; the one that serves is told that path by the daemon (`wire.HandOver`).
A connection to it is trusted by its peer's uid, which must be our own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from core.gateway import wire
from core.listen import MOST as LISTENS
from core.listen import Listen

ANSWER_S = 5.0
"""How long a successor may take to serve; after that the old one goes on as if it had never been asked."""
_FIRST_BYTES = 4096
MOST = 16 << 20
"""Bytes of the first line: it has what each key has used."""
_DECODE: msgspec.json.Decoder[wire.ToSuccessor] = msgspec.json.Decoder(wire.ToSuccessor)


class Wrong(Exception):
    """The other side is not a gateway of ours, or says what we do not understand."""


def _uid(sock: socket.socket) -> int:
    return int(struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1])


class Successor:
    """The old gateway's end."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    @classmethod
    async def give(cls, path: str, handed: wire.Handed, listeners: Sequence[socket.socket], lock: int) -> Successor:
        """Hand over and wait until the other one serves. `listeners`: that of the Unix socket, then those for programs.
        Raises OSError, TimeoutError or `Wrong`; then nothing has changed and they are still ours."""
        loop = asyncio.get_running_loop()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.setblocking(False)
        folder = os.open(Path(path).parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            async with asyncio.timeout(ANSWER_S):
                await loop.sock_connect(sock, f"/proc/self/fd/{folder}/{Path(path).name}")
                if _uid(sock) != os.getuid():
                    raise Wrong(f"the successor runs as uid {_uid(sock)}")
                first, *others = (listener.fileno() for listener in listeners)
                line = msgspec.json.encode(handed) + b"\n"
                sent = socket.send_fds(sock, [line[:_FIRST_BYTES]], [first, lock, *others])
                await loop.sock_sendall(sock, line[sent:])
                reader, writer = await asyncio.open_unix_connection(sock=sock)
                answer = msgspec.json.decode(await reader.readuntil(b"\n"), type=wire.Report)
                if not answer.ok:
                    raise Wrong(answer.reason)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.DecodeError) as error:
            sock.close()
            raise Wrong(f"the successor did not answer: {error}") from None
        except BaseException:
            sock.close()
            raise
        finally:
            os.close(folder)
        return cls(writer)

    def tell(self, busy: wire.Busy) -> None:
        """What is still in flight."""
        self._writer.write(msgspec.json.encode(busy) + b"\n")

    def close(self) -> None:
        self._writer.close()


class Predecessor:
    """The new gateway's end: what it was given, and how to follow what the old one still does."""

    def __init__(
        self, handed: wire.Handed, listener: socket.socket, doors: dict[Listen, socket.socket], lock: int,
        sock: socket.socket,
    ) -> None:  # fmt: skip
        self.handed = handed
        self.listener = listener
        self.doors = doors
        """The listeners for programs."""
        self.lock = lock
        self._sock = sock

    @classmethod
    async def take(cls, waiting: socket.socket) -> Predecessor:
        """Wait at a listening socket for a gateway that hands over. Raises OSError or `Wrong`."""
        loop = asyncio.get_running_loop()
        sock, _ = await loop.sock_accept(waiting)
        sock.setblocking(False)
        try:
            if _uid(sock) != os.getuid():
                raise Wrong(f"uid {_uid(sock)} may not hand over")
            readable = asyncio.Event()
            loop.add_reader(sock.fileno(), readable.set)
            try:
                async with asyncio.timeout(ANSWER_S):
                    await readable.wait()
            finally:
                loop.remove_reader(sock.fileno())
            data, descriptors, _, _ = socket.recv_fds(sock, _FIRST_BYTES, 2 + LISTENS, socket.MSG_CMSG_CLOEXEC)
            async with asyncio.timeout(ANSWER_S):
                while not data.endswith(b"\n") and len(data) < MOST and (more := await loop.sock_recv(sock, 1 << 16)):
                    data += more
        except BaseException:
            sock.close()
            raise
        handed: wire.Handed | None = None
        reason = "it comes from another version"
        try:
            handed = msgspec.json.decode(data, type=wire.Handed)
        except msgspec.DecodeError as error:
            reason = str(error)
        named = _named(handed) if handed is not None else ()
        if handed is None or handed.version != wire.WIRE_VERSION or len(descriptors) != 2 + len(named):
            for each in descriptors:
                os.close(each)
            sock.close()
            raise Wrong(f"the hand-over was not understood: {reason}")
        lock = descriptors.pop(1)
        listener, *doors = (socket.socket(fileno=each) for each in descriptors)
        for end in (listener, *doors):
            end.setblocking(False)
        return cls(handed, listener, dict(zip(named, doors, strict=True)), lock, sock)

    async def follow(self, hold: Callable[[wire.Busy], None]) -> None:
        """Say that we serve, then tell `hold` what the old one still has in flight, until it has ended."""
        reader, writer = await asyncio.open_unix_connection(sock=self._sock, limit=MOST)
        writer.write(msgspec.json.encode(wire.Report(what="handover")) + b"\n")
        try:
            while True:
                message = _DECODE.decode(await reader.readuntil(b"\n"))
                if isinstance(message, wire.Busy):
                    hold(message)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, msgspec.DecodeError, OSError):
            pass
        finally:
            hold(wire.Busy(in_flight={}))
            writer.close()


def _named(handed: wire.Handed) -> tuple[Listen, ...]:
    """A gateway of one release back had one listener for programs at most."""
    return handed.doors or ((Listen(handed.listens),) if handed.listens else ())
