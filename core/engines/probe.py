"""A small HTTP/1.1 client for health and counters: one request a connection, short time-outs, bounded answers."""

from __future__ import annotations

import asyncio
import ssl

import msgspec

from core.engines.base import Endpoint

BODY_LIMIT = 4 << 20


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes


async def get(endpoint: Endpoint, path: str, *, timeout: float = 2.0) -> Answer:
    """GET `path`. Raises OSError, TimeoutError or ValueError (no HTTP, too large)."""
    async with asyncio.timeout(timeout):
        if endpoint.socket:
            reader, writer = await asyncio.open_unix_connection(endpoint.socket, limit=65536)
        else:
            context = ssl.create_default_context() if endpoint.tls else None
            reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port, ssl=context, limit=65536)
        try:
            secret = f"Authorization: Bearer {endpoint.secret}\r\n" if endpoint.secret else ""
            host = endpoint.host or "localhost"
            writer.write(f"GET {path} HTTP/1.0\r\nHost: {host}\r\n{secret}Connection: close\r\n\r\n".encode())
            await writer.drain()
            return await _read(reader)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise ValueError("the answer is cut off or too large") from error
        finally:
            writer.close()


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
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            if len(body) + size > BODY_LIMIT:
                raise ValueError("the answer is too large")
            body += await reader.readexactly(size)
            await reader.readexactly(2)
        return Answer(int(parts[1]), body)
    length = headers.get(b"content-length")
    if length is not None:
        if int(length) > BODY_LIMIT:
            raise ValueError("the answer is too large")
        return Answer(int(parts[1]), await reader.readexactly(int(length)))
    body = b""
    while piece := await reader.read(65536):
        body += piece
        if len(body) > BODY_LIMIT:
            raise ValueError("the answer is too large")
    return Answer(int(parts[1]), body)
