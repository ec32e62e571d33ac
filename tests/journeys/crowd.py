"""Many clients at the gateway's port, each asking again as soon as it is answered, and what each of them was told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TURN_S = 0.25
"""A client that was refused, or finds nobody, asks again after so long."""


class Heard(NamedTuple):
    """What one request came to: `outcome` is whole, error (an event in the stream), cut, refused, or nobody."""

    key: str
    outcome: str
    at: float
    """Epoch seconds of its end."""
    status: int
    pieces: int
    reason: str


class Crowd:
    """`port`: a file's content changes with the gateway, a port does not."""

    def __init__(self, port: int, deployment: str, **fields: object) -> None:
        self._port = port
        self._body = json.dumps({
            "model": deployment, "stream": True, "messages": [{"role": "user", "content": "Tell me."}], **fields,
        }).encode()  # fmt: skip
        self.heard: list[Heard] = []
        self.over = asyncio.Event()

    async def client(self, key: str, secret: str) -> None:
        """One client, until `over`; the request under way is ended."""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {secret}\r\n"
            f"Content-Length: {len(self._body)}\r\n\r\n"
        ).encode()
        while not self.over.is_set():
            writer = None
            try:
                async with asyncio.timeout(10):
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                while not self.over.is_set():
                    heard = await self._ask(reader, writer, head, key)
                    self.heard.append(heard)
                    if heard.outcome in ("refused", "error"):
                        await self._wait(TURN_S)
                    if heard.outcome == "cut":
                        break
            except (OSError, TimeoutError) as error:
                self.heard.append(Heard(key, "nobody", time.time(), 0, 0, str(error)))
            finally:
                if writer is not None:
                    writer.close()
            await self._wait(TURN_S)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.over.wait()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, key: str) -> Heard:
        status, body = 0, b""
        try:
            async with asyncio.timeout(120):
                writer.write(head + self._body)
                answer = await reader.readuntil(b"\r\n\r\n")
                status = int(answer[9:12])
                if b"content-length: " in answer.lower():
                    length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                    body = await reader.readexactly(length)
                else:
                    while not body.endswith(b"0\r\n\r\n"):
                        if not (part := await reader.read(65536)):
                            return self._heard(key, "cut", status, body, "the stream ended in the middle")
                        body += part
        except (asyncio.IncompleteReadError, OSError) as error:
            return self._heard(key, "cut", status, body, str(error))
        if status != 200:
            return self._heard(key, "refused", status, b"", body.decode()[:300])
        if b'data: {"error"' in body:
            return self._heard(key, "error", status, body, body[body.rindex(b'data: {"error"') :].decode()[:300])
        whole = b"data: [DONE]" in body
        return self._heard(key, "whole" if whole else "cut", status, body, "" if whole else "no [DONE] in it")

    def _heard(self, key: str, outcome: str, status: int, body: bytes, reason: str) -> Heard:
        return Heard(key, outcome, time.time(), status, body.count(b'"content": "w'), reason)

    def of(self, *outcomes: str) -> list[Heard]:
        return [each for each in self.heard if each.outcome in outcomes]


def made(counts: Path) -> Iterator[tuple[int, bool]]:
    """What the doubles say that they made: pieces of each request, and whether it was whole."""
    for line in counts.read_text().splitlines():
        pieces, whole = line.split()
        yield int(pieces), whole == "1"
