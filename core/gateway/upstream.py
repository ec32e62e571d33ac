"""The engine's side: connections to replicas, kept for less time than an engine keeps them."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from pathlib import Path
from typing import Any, Protocol, cast

import httptools

from core.gateway.heads import LastHead
from core.gateway.outbox import OUT

JOIN_BYTES = 64 << 10
"""Shorter bodies are cheaper to copy than to send apart from their head."""
KEEP_S = 3.5
"""llama.cpp's server closes idle connections at 5 s, and reuse at that moment races."""
CONNECT_S = 5.0
HEAD_BYTES = 256 << 10
"""An engine that says more than this before its answer begins is broken."""


class Taker(Protocol):
    """Who gets an answer: whole, or its head and then its parts."""

    def answer(self, status: int, content_type: bytes, body: bytes) -> None: ...
    def answer_head(self, status: int, content_type: bytes, length: int | None) -> None: ...
    def answer_part(self, data: bytes, last: bool) -> None: ...
    def answer_lost(self) -> None: ...


class EngineConnection:
    """One connection to an engine, as a loop's protocol (decision 0012); serves one request at a time."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.transport: asyncio.Transport = None  # type: ignore[assignment]
        self.taker: Taker | None = None
        self.used = False
        self.idle_since = 0.0
        self.closed = False
        self._paused = False
        self._parser: Any = httptools.HttpResponseParser(self)
        self._raw = 0
        self._parts: list[bytes] = []
        self._type = b"application/json"
        self._length: int | None = None
        self._chunked = False
        self._head = False
        self._complete = False
        self._keep = False
        self._untouched = True
        self._last = LastHead()
        self._status = 0

    @property
    def framed(self) -> bool:
        """Does its answer say where it ends?"""
        return self._chunked or self._length is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, taker: Taker, head: bytes, body: bytes = b"") -> None:
        """Send one whole request; `taker` hears of the answer."""
        self.taker = taker
        self._untouched = True
        if len(body) < JOIN_BYTES:
            OUT.write(self.transport, head + body)
        else:
            self.transport.writelines((head, body))

    def abort(self) -> None:
        """Hang up: the engine frees the slot at its next token."""
        self.taker = None
        self.closed = True
        self.transport.abort()

    def leave(self, taker: Taker) -> None:
        """Say that nothing more comes from here, which a client does that goes: `taker` hears what still comes."""
        self.taker = taker
        if self.closed or self.transport.is_closing() or not self.transport.can_write_eof():
            self.abort()
            taker.answer_lost()
            return
        self.resume()
        self.transport.write_eof()

    def pause(self) -> None:
        if not self._paused and not self.closed:
            self._paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self.closed:
            self._paused = False
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        taker = self.taker
        if taker is None:
            self.abort()
            return
        if self._untouched:
            body = self._last.body(data)
            if body is not None:
                self.taker = None
                self.resume()
                self._pool.put(self)
                taker.answer(self._status, self._type, body)
                return
            self._begin()
            whole = data
        else:
            whole = b""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.abort()
            taker.answer_lost()
            return
        if self.taker is not taker:
            return
        if self._complete:
            self._last.learn(whole, self._length or 0)
            self._finish(taker)
        elif self._head:
            # Also without a body: a stream's head goes to the client before its first event.
            body = b"".join(self._parts)
            self._parts.clear()
            taker.answer_part(body, False)
        else:
            self._raw += len(data)
            if self._raw > HEAD_BYTES:
                self.abort()
                taker.answer_lost()

    def _begin(self) -> None:
        """The first bytes of an answer."""
        self._untouched = False
        self._raw = 0
        self._type, self._length = b"application/json", None
        self._head = self._complete = self._chunked = self._keep = False

    def _finish(self, taker: Taker) -> None:
        body = b"".join(self._parts)
        self._parts.clear()
        self.taker = None
        self.resume()
        if self._keep and not self.closed:
            self._pool.put(self)
        else:
            self.closed = True
            self.transport.close()
        taker.answer_part(body, True)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._pool.forget(self)
        taker, self.taker = self.taker, None
        if taker is None:
            return
        if not self._untouched and self._head and not self._chunked and self._length is None and exc is None:
            taker.answer_part(b"".join(self._parts), True)
        else:
            taker.answer_lost()

    # httptools calls these

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self._type = value
        elif name == b"content-length" and value.isdigit():
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._chunked = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._head:  # a second answer that nobody asked for
            self._keep = False
            return
        if status < 200:
            return
        self._head = True
        self._status = status
        # Asked now: at the end of the message the parser has forgotten its flags and always says no.
        self._keep = self._parser.should_keep_alive()
        if self.taker is not None:
            self.taker.answer_head(status, self._type, None if self._chunked else self._length)

    def on_body(self, body: bytes) -> None:
        if not self._complete:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        self._complete = self._complete or self._head


class Pool:
    """The connections to one replica."""

    def __init__(self, endpoint: str, at: str = "") -> None:
        """`at`: the address to connect to in place of the endpoint's host."""
        self._endpoint = endpoint
        self._at = at
        kind, _, rest = endpoint.partition(":")
        self.host = "corral" if kind == "unix" else rest
        """The Host header: an attached server may stand behind a proxy that goes by it."""
        self._idle: list[EngineConnection] = []
        self._closed = False

    def get(self, now: float) -> EngineConnection | None:
        """An idle connection that is young enough; `now` is monotonic."""
        limit = now - KEEP_S
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and connection.idle_since > limit:
                return connection
            connection.abort()
        return None

    def put(self, connection: EngineConnection) -> None:
        connection.used = True
        connection.idle_since = time.monotonic()
        if self._closed:
            connection.abort()
        else:
            self._idle.append(connection)

    def forget(self, connection: EngineConnection) -> None:
        if connection in self._idle:
            self._idle.remove(connection)

    def prune(self) -> None:
        """Close what has been idle for too long."""
        limit = time.monotonic() - KEEP_S
        for connection in [each for each in self._idle if each.idle_since <= limit]:
            self._idle.remove(connection)
            connection.abort()

    def close(self) -> None:
        """Close what is idle, and what becomes idle later."""
        self._closed = True
        for connection in self._idle:
            connection.abort()
        self._idle.clear()

    async def connect(self) -> EngineConnection:
        """A new connection. Raises OSError or TimeoutError. Long socket paths go through /proc/self/fd."""
        loop = asyncio.get_running_loop()
        kind, _, rest = self._endpoint.partition(":")
        connection = EngineConnection(self)
        protocol = cast(asyncio.Protocol, connection)
        async with asyncio.timeout(CONNECT_S):
            if kind == "unix":
                path = Path(rest)
                folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
                try:
                    await loop.create_unix_connection(lambda: protocol, f"/proc/self/fd/{folder}/{path.name}")
                finally:
                    os.close(folder)
            else:
                host, _, port = rest.rpartition(":")
                host, tls = host.strip("[]"), kind == "tls"
                await loop.create_connection(
                    lambda: protocol,
                    self._at or host,
                    int(port),
                    ssl=ssl.create_default_context() if tls else None,
                    server_hostname=host if tls else None,
                )
        return connection
