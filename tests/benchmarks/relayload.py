"""A stub engine and a load generator for `bench_gateway.py`, each a process of its own on uvloop.

    relayload.py stub SOCKET                answers as an engine does, at once
    relayload.py stub tcp:PORT              the same on loopback
    relayload.py load SOCKET JSON           asks what the JSON object says (see `Order`), prints two JSON lines:
                                            {"begun": true} when the measured time begins, and the figures at its end;
                                            or {"begun": false}, when not all of it has begun in time
    relayload.py load tcp:PORT JSON         the same on loopback; tls:PORT: with TLS, whatever the certificate

Neither parses HTTP in full: they frame just what the other end and a proxy between them can send.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import ssl
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import uvloop

BURST = 64
"""Events of a stream that is answered at once."""
PAUSE_S = 0.05
"""Between two events of a paced stream."""
CONNECT_S = 60.0
"""For all connections, and for the first bytes of each answer. None asks before all are there: those that do would
starve the rest of an overloaded loop."""
AT_ONCE = 64
"""Connections that are under way."""
TICKS = 10
"""Paced streams are written in so many groups, so that they don't all come at one moment."""
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_STAMP = re.compile(rb'"t":(\d+)}')
_ANSWER = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1767225600,"model":"chat","choices":[{"index":0,'
    b'"finish_reason":"stop","message":{"role":"assistant","content":"A llama is a domesticated camelid."}}],'
    b'"usage":{"prompt_tokens":12,"completion_tokens":9,"total_tokens":21}}'
)
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)
_SSE = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Order(msgspec.Struct, frozen=True):
    """What a load generator shall do."""

    kind: str
    """`small`: requests one after the other; `burst`: streams of 64 events, each written as soon as the one before;
    `paced`: one endless stream a connection."""
    clients: int
    seconds: float
    """Of the measured time; one second before it is for warming up."""
    key: str = ""
    """Sent as an API key."""


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(text: bytes) -> bytes:
    """One event of the length that llama.cpp sends (some 200 bytes)."""
    return (
        b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"%b"}}],"created":1767225600,'
        b'"id":"chatcmpl-Y5hVnTTDjUd4e8OV0A0r4Yxg","model":"chat","system_fingerprint":"b6500-0",'
        b'"object":"chat.completion.chunk"}\n\n' % text
    )


_USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}\n\n'
_EVENTS = [chunk(event(b" llama"))] * BURST + [chunk(_USAGE), chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"]


class Engine(asyncio.Protocol):
    """One connection of the stub."""

    def __init__(self, paced: list[set[Engine]]) -> None:
        self._paced = paced
        self._held = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        for group in self._paced:
            group.discard(self)

    def data_received(self, data: bytes) -> None:
        data = self._held + data
        while True:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                break
            found = _LENGTH.search(data, 0, end)
            whole = end + int(found[1]) if found else end
            if len(data) < whole:
                break
            self._answer(data[end:whole])
            data = data[whole:]
        self._held = data

    def _answer(self, body: bytes) -> None:
        if b'"paced"' in body:
            self.transport.write(_SSE)
            min(self._paced, key=len).add(self)
        elif b'"stream"' in body:
            self.transport.write(_SSE)
            for each in _EVENTS:
                self.transport.write(each)
        else:
            self.transport.write(_JSON)


async def stub(path: str) -> None:
    paced: list[set[Engine]] = [set() for _ in range(TICKS)]
    loop = asyncio.get_running_loop()
    if path.startswith("tcp:"):
        await loop.create_server(lambda: Engine(paced), "127.0.0.1", int(path[4:]), backlog=4096)
    else:
        await loop.create_unix_server(lambda: Engine(paced), path, backlog=4096)
    due = loop.time()
    while True:
        for group in paced:
            # What did not come in time is not made up for: the next look would find more than 20 events/s.
            due = max(due + PAUSE_S / TICKS, loop.time())
            await asyncio.sleep(due - loop.time())
            data = chunk(event(b" llama")[:-3] + b',"t":%d}\n\n' % time.monotonic_ns())
            for each in group:
                each.transport.write(data)


class Asker(asyncio.Protocol):
    """One client of the load generator."""

    def __init__(self, tally: Tally, request: bytes, stream: bool) -> None:
        self._tally = tally
        self._request = request
        self._stream = stream
        self._got = b""
        self.heard = False

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def ask(self) -> None:
        self._asked = time.monotonic()
        self._got = b""
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._tally.lost += not self._tally.over

    def data_received(self, data: bytes) -> None:
        self.heard = True
        if self._stream:
            self._tally.streamed(data)
            # The end may come in two reads.
            tail = self._got + data[-8:]
            self._got = tail[-8:]
            if tail.endswith(b"\r\n0\r\n\r\n"):
                self._done()
            return
        data = self._got + data
        end = data.find(b"\r\n\r\n") + 4
        found = _LENGTH.search(data, 0, end) if end > 3 else None
        if found is None or len(data) < end + int(found[1]):
            self._got = data
            return
        self._tally.wrong += not data.startswith(b"HTTP/1.1 200")
        self._done()

    def _done(self) -> None:
        self._tally.times.append(time.monotonic() - self._asked)
        self.ask()


class Tally:
    """What came since the measured time began."""

    def __init__(self) -> None:
        self.over = False
        self.lost = 0
        self.clear()

    def clear(self) -> None:
        self.events = 0
        self.wrong = 0
        self.times: list[float] = []
        self.lags: list[float] = []

    def streamed(self, data: bytes) -> None:
        self.events += data.count(b'data: {"choices":[{')
        at = data.rfind(b'"t":')
        if at >= 0 and (found := _STAMP.match(data, at)):
            self.lags.append((time.monotonic_ns() - int(found[1])) / 1e9)


def share(ordered: list[float], part: float) -> float | None:
    return round(1000 * ordered[int(part * (len(ordered) - 1))], 3) if ordered else None


def requests(order: Order) -> Iterator[bytes]:
    """One request for each client."""
    fields = {"model": "chat", "messages": [{"role": "user", "content": "What is a llama?"}], "max_tokens": 64}
    if order.kind != "small":
        fields["stream"] = True
    if order.kind == "paced":
        fields["user"] = "paced"
    body = json.dumps(fields).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: corral\r\nContent-Type: application/json\r\n"
    if order.key:
        head += b"Authorization: Bearer %b\r\n" % order.key.encode()
    for _ in range(order.clients):
        yield head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@functools.cache
def whatever() -> ssl.SSLContext:
    """Takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def connected(path: str, asker: Asker, turns: asyncio.Semaphore) -> None:
    """Connect; a full backlog is waited for."""
    async with turns:
        while True:
            try:
                if path.startswith(("tcp:", "tls:")):
                    secure = whatever() if path.startswith("tls:") else None
                    await asyncio.get_running_loop().create_connection(
                        lambda: asker, "127.0.0.1", int(path[4:]), ssl=secure
                    )
                else:
                    await asyncio.get_running_loop().create_unix_connection(lambda: asker, path)
                return
            except BlockingIOError:
                await asyncio.sleep(0.01)


async def load(path: str, order: Order) -> None:
    tally, turns = Tally(), asyncio.Semaphore(AT_ONCE)
    askers = [Asker(tally, request, order.kind != "small") for request in requests(order)]
    try:
        async with asyncio.timeout(CONNECT_S):
            await asyncio.gather(*(connected(path, each, turns) for each in askers))
            for each in askers:
                each.ask()
            while not all(each.heard for each in askers):
                await asyncio.sleep(0.05)
    except (OSError, TimeoutError):
        print(json.dumps({"begun": False}), flush=True)
        return
    await asyncio.sleep(1)
    tally.clear()
    started, used = time.monotonic(), time.process_time()
    print(json.dumps({"begun": True}), flush=True)
    await asyncio.sleep(order.seconds)
    seconds, tally.over = time.monotonic() - started, True
    times, lags = sorted(tally.times), sorted(tally.lags)
    print(json.dumps({
        "requests_s": len(times) / seconds, "events_s": tally.events / seconds, "p50_ms": share(times, 0.5),
        "p99_ms": share(times, 0.99), "lag_p50_ms": share(lags, 0.5), "lag_p99_ms": share(lags, 0.99),
        "wrong": tally.wrong, "lost": tally.lost, "load_core": (time.process_time() - used) / seconds,
    }), flush=True)  # fmt: skip


def main() -> int:
    match sys.argv[1:]:
        case ["stub", path]:
            uvloop.run(stub(path))
        case ["load", path, order]:
            uvloop.run(load(path, msgspec.json.decode(order, type=Order)))
        case _:
            print(__doc__)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
