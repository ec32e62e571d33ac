"""A model's header over the network: its first megabytes tell what memory it needs, before the rest is fetched."""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
from typing import Any

import msgspec

from core.catalog import files
from core.catalog.pull.refusals import TooOften, looks_like, refused, wait_of
from core.catalog.pull.web import Answer, NotReached, Web
from core.errors import BadModel, CorralError, Failed, NotFound

TRIES = (1 << 20, 6 << 20, 24 << 20, 64 << 20)
"""Bytes after which it is tried to read: vocabularies have up to some 10 MB."""
NO_HEADER = (1 << 16,)
LARGEST = 1 << 50
TOTAL = re.compile(r"bytes \d{1,18}-\d{1,18}/(\d{1,18})")


class Peek(msgspec.Struct, frozen=True):
    """What a server has at an address."""

    bytes: int
    header: dict[str, Any] | None
    """None: it could not be read from the first megabytes."""


async def peek(web: Web, url: str, name: str, *, header: bool = True) -> Peek:
    """Ask for the beginning of a file; without `header` for its length alone. Raises `NeedsToken`, `Shut`, `NotFound`,
    `BadModel` for what is no GGUF, `NotReached`, `Failed`."""
    tries = TRIES if header else NO_HEADER
    async with web.get(url, {"Range": f"bytes=0-{tries[-1] - 1}"}) as answer:
        total = _total(answer, name, web, url)
        data = bytearray()
        for until in tries:
            while len(data) < min(until, total):
                piece = await answer.piece()
                if not piece:
                    break
                data += piece
                if not b"GGUF".startswith(data[:4]) and not data.startswith(b"GGUF"):
                    raise BadModel(f"{name} is no GGUF file", looks_like(bytes(data)), "see what the server has there")
                if not header:
                    return Peek(total, None)
            found = await asyncio.to_thread(_parsed, bytes(data), total, name)
            if found is not None or len(data) < until:
                return Peek(total, found)
    return Peek(total, None)


def _total(answer: Answer, name: str, web: Web, url: str) -> int:
    if answer.status in (401, 403):
        raise refused(answer, web, url)
    if answer.status in (404, 410):
        raise NotFound(f"{answer.host} has no {name}", f"it answers {answer.status}", "look at the address")
    if answer.status == 429 or answer.status >= 500:
        wait = wait_of(answer)
        todo = f"ask again after {wait:.0f} s" if wait is not None else "ask again in some minutes"
        told = TooOften(answer.host) if answer.status == 429 and wait is None else None
        what = f"{answer.host} cannot give {name} now"
        raise NotReached(told.what if told else what, told.why if told else f"it answers {answer.status}", todo)
    if answer.status not in (200, 206):
        raise Failed(f"{answer.host} does not give {name}", f"it answers {answer.status}")
    said = TOTAL.fullmatch(answer.header("Content-Range").strip())
    length = said[1] if said else answer.header("Content-Length") if answer.status == 200 else ""
    if not re.fullmatch(r"\d{1,18}", length) or not int(length):
        raise Failed(f"{answer.host} does not say how long {name} is", "without that no room can be kept for it")
    if int(length) > LARGEST:
        raise BadModel(f"{name} is absurdly large", f"the server says that it has {length} bytes")
    return int(length)


def _parsed(data: bytes, total: int, name: str) -> dict[str, Any] | None:
    """The header, if all of it is in `data`: the rest of the file is a hole."""
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        os.ftruncate(file.fileno(), max(total, len(data)))
        try:
            found = files.header_of(file.fileno(), name)
        except CorralError:
            return None
    return found if found["data_start"] <= len(data) else None
