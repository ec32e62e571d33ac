"""HTTP/1.1 over a Unix socket with asyncio streams and httptools: what `client` and `chats` speak.

aiohttp would cost the terminal 150-250 ms at start. One request a connection; bodies are read whole or as a stream
of server-sent events.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType

import httptools


class Lost(ConnectionError):
    """The other end was there, and went away: it may have done what it was asked."""


class Response:
    """An answer whose body is still to come. Use as an async context manager; leaving closes the connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._ended = False
        self._started = False
        self.status = 0
        self.headers: dict[str, str] = {}

    # httptools' callbacks
    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self._started = True

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        self._ended = True

    async def start(self) -> None:
        """Read up to the end of the headers. Raises `Lost`, ConnectionError."""
        while not self._started:
            await self._more()

    async def _more(self) -> None:
        try:
            data = await self._reader.read(65536)
        except OSError as error:
            raise Lost(str(error)) from error
        if not data:
            if self._started and "content-length" not in self.headers and "transfer-encoding" not in self.headers:
                self._ended = True
                return
            raise Lost("the connection closed in the middle of an answer")
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            raise ConnectionError(f"the answer is no HTTP: {error}") from error

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `Lost` if it is cut off."""
        while True:
            while self._pieces:
                yield self._pieces.pop(0)
            if self._ended:
                return
            await self._more()

    async def read(self, limit: int = 256 << 20) -> bytes:
        """The whole body, `limit` bytes at most (ValueError)."""
        out = bytearray()
        async for piece in self.pieces():
            out += piece
            if len(out) > limit:
                raise ValueError("the answer is too large")
        return bytes(out)

    def close(self) -> None:
        self._writer.close()

    async def __aenter__(self) -> Response:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a Unix socket through a descriptor of its folder, which works under a path of any length."""
    fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{fd}/{path.name}")
    finally:
        os.close(fd)


def peer_pid(writer: asyncio.StreamWriter) -> int:
    """The process that listens at the other end, by the kernel's word."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[0])


def peer_uid(writer: asyncio.StreamWriter) -> int:
    """Whose the other end is, by the kernel's word."""
    raw = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int(struct.unpack("3i", raw)[1])


async def request(
    path: Path,
    method: str,
    target: str,
    *,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
    upload: AsyncIterator[bytes] | None = None,
    length: int = 0,
) -> Response:
    """Send one request and read the answer's headers within `timeout` seconds.

    With `upload`, its pieces (`length` bytes in all) are the body, each taken within `timeout`.
    Raises OSError where nobody is there, `Lost` where whoever was there went away, or TimeoutError.
    """
    async with asyncio.timeout(timeout):
        reader, writer = await connect(path)
    try:
        fields = {"Host": "corral", "Connection": "close", **(headers or {})}
        if body or upload is not None or method in ("POST", "PUT", "PATCH"):
            fields["Content-Length"] = str(length if upload is not None else len(body))
        head = f"{method} {target} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"
        writer.write(head.encode("latin-1") + body)
        if upload is not None:
            async for piece in upload:
                writer.write(piece)
                async with asyncio.timeout(timeout):
                    await _drained(writer)
        response = Response(reader, writer)
        async with asyncio.timeout(timeout):
            await _drained(writer)
            await response.start()
    except BaseException:
        writer.close()
        raise
    return response


async def _drained(writer: asyncio.StreamWriter) -> None:
    try:
        await writer.drain()
    except OSError as error:
        raise Lost(str(error)) from error


async def events(response: Response) -> AsyncIterator[tuple[str, str]]:
    """(id, data) of each server-sent event, with no data for a bare id; comments are passed over. Ends when the stream
    ends."""
    buffer = b""
    async for piece in response.pieces():
        buffer += piece.replace(b"\r\n", b"\n")
        while b"\n\n" in buffer:
            block, _, buffer = buffer.partition(b"\n\n")
            id, data = "", []
            for line in block.split(b"\n"):
                name, _, value = line.partition(b":")
                text = value.removeprefix(b" ").decode("utf-8", "replace")
                if name == b"id":
                    id = text
                elif name == b"data":
                    data.append(text)
            if data or id:
                yield id, "\n".join(data)
