"""A small HTTP/1.1 client for health and counters: one request a connection, short time-outs, bounded answers."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
from pathlib import Path

import msgspec

from core.engines.base import Endpoint
from core.paths import SOCKET_LIMIT

BODY_LIMIT = 4 << 20
HEAD_LIMIT = 65536
TIMEOUT_S = 2.0


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes


async def get(endpoint: Endpoint, path: str, *, timeout: float = TIMEOUT_S) -> Answer:
    """GET `path`. `timeout` (seconds) is for all of it, so a server that drips bytes does not hold the caller.

    Raises OSError, TimeoutError, or ValueError for an answer that is no HTTP, cut off, or above 4 MiB.
    """
    async with asyncio.timeout(timeout):
        reader, writer = await connect(endpoint)
        try:
            secret = f"Authorization: Bearer {endpoint.secret}\r\n" if endpoint.secret else ""
            host = endpoint.host or "localhost"
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n{secret}Connection: close\r\n\r\n".encode())
            await writer.drain()
            return await _read(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("its answer is cut off or too large") from error
        finally:
            # Not waited for, and not closed in order: the other side may never answer to that.
            writer.transport.abort()


async def connect(endpoint: Endpoint) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to its server, by whichever way it listens. Raises OSError."""
    if not endpoint.socket:
        context = _tls() if endpoint.tls else None
        return await asyncio.open_connection(
            endpoint.at or endpoint.host, endpoint.port, ssl=context, limit=HEAD_LIMIT,
            server_hostname=endpoint.host if context is not None else None,
        )  # fmt: skip
    if len(os.fsencode(endpoint.socket)) <= SOCKET_LIMIT:
        return await asyncio.open_unix_connection(endpoint.socket, limit=HEAD_LIMIT)
    # Longer than a socket's path may be: through a descriptor of its folder.
    path = Path(endpoint.socket)
    folder = os.open(path.parent, os.O_PATH | os.O_CLOEXEC)
    try:
        return await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/{path.name}", limit=HEAD_LIMIT)
    finally:
        os.close(folder)


@functools.cache
def _tls() -> ssl.SSLContext:
    """Reading the host's certificates takes 10-30 ms: once."""
    return ssl.create_default_context()


async def _read(reader: asyncio.StreamReader) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    line, _, rest = head.partition(b"\r\n")
    parts = line.split()
    if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
        raise ValueError("it does not speak HTTP")
    headers = {
        key.strip().lower(): value.strip()
        for key, _, value in (each.partition(b":") for each in rest.split(b"\r\n"))
    }  # fmt: skip
    status = int(parts[1])
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return Answer(status, await _chunks(reader))
    length = headers.get(b"content-length")
    if length is not None:
        return Answer(status, await reader.readexactly(_number(length, 10)))
    body = bytearray()
    while piece := await reader.read(65536):
        body += piece
        if len(body) > BODY_LIMIT:
            raise ValueError("its answer is too large")
    return Answer(status, bytes(body))


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = bytearray()
    while size := _number((await reader.readuntil(b"\r\n")).split(b";")[0].strip(), 16):
        if len(body) + size > BODY_LIMIT:
            raise ValueError("its answer is too large")
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    return bytes(body)


def _number(text: bytes, base: int) -> int:
    try:
        number = int(text, base)
    except ValueError:
        number = -1
    if number < 0:
        raise ValueError("it does not speak HTTP")
    if number > BODY_LIMIT:
        raise ValueError("its answer is too large")
    return number
