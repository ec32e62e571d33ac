"""One file over the network, from where the last try ended, to bytes that are what they should be.

What lies on the disk counts as far as `NAME.json` beside it says that it was synced: a host that lost power has no more
than that for sure. The rest is asked for with If-Range, so that a file that changed meanwhile comes whole and from the
start. Where a hub says a hash, the file must have it; bytes that do not, and were partly there before, are fetched once
more from the start.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from core import fulldisk
from core.catalog import files
from core.catalog.pull.refusals import TooOften, looks_like, pause, refused
from core.catalog.pull.web import Answer, NotReached, Web
from core.errors import BadModel, Failed, NoRoom, NotFound

PAUSES_S = (0.5, 1, 2, 5, 10, 30, 60)
"""Between tries of which none brought a byte; the last one again and again."""
BUSY_S = (5, 10, 30, 60)
"""The same where the server says that it was asked too often, and not for how long."""
GIVE_UP_S = 6 * 3600.0
"""Without a byte for so long, it is left to a person: a night's outage is not."""
ANEW = 5
"""A file that begins anew more often is not to be had."""
PIECE = 1 << 20
"""Written and hashed at once."""
SYNC = 32 << 20
"""Synced so often; what a lost host has to fetch anew."""
_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})")


class Changed(Exception):
    """What the server has now is not what was listed."""


class Unkept(Failed):
    """What came could not be written: that is the disk's fault, and no word on the file."""


class Asked(msgspec.Struct, frozen=True):
    """One file that is wanted. `bytes` 0: nobody has said how many; `sha256` "": nobody vouches for it."""

    url: str
    name: str
    bytes: int = 0
    sha256: str = ""


class Kept(msgspec.Struct, frozen=True):
    """What is known of a file's bytes on the disk."""

    synced: int
    bytes: int
    validator: str
    """An ETag or a date by which the server knows it."""
    sha256: str = ""


Say = Callable[[str], None]
Wait = Callable[[float], Awaitable[object]]


class Download:
    """One file into `folder`. `told` gets the bytes that are there, `said` sentences on what happened. `take` waits
    until so many bytes are within the caps. With less than half of `spare()` bytes left on the disk
    it ends."""

    def __init__(
        self, web: Web, asked: Asked, folder: Path, *, told: Callable[[int], None], said: Say,
        take: Callable[[int], Awaitable[None]], wait: Wait = asyncio.sleep, spare: Callable[[], int] = lambda: 0,
    ) -> None:  # fmt: skip
        self._web, self._asked, self._told, self._said, self._take, self._wait = web, asked, told, said, take, wait
        self._path, self._spare = folder / asked.name, spare
        self._fd = -1
        self._digest = hashlib.sha256()
        self._done = self._synced = 0
        self._kept = Kept(0, asked.bytes, "", asked.sha256)
        self._anews = 0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        """A cancelled write goes on in its thread: it ends before the file is closed."""
        self._old = False
        """Some of it was on the disk before this try."""

    async def run(self) -> tuple[int, str]:
        """The file's bytes and its SHA-256, when it is whole on the disk. Raises `NotReached` after the last pause,
        `Changed`, `NeedsToken`, `Shut`, `BadModel`, `NoRoom`, `Unkept`, `NotFound`, `Failed`; what is there stays."""
        try:
            await asyncio.to_thread(self._open)
            await self._whole()
            if self._asked.sha256 and self._digest.hexdigest() != self._asked.sha256:
                if not self._old:
                    raise self._other()
                await self._anew("what was here is not what it should be")
                self._old = False
                await self._whole()
                if self._digest.hexdigest() != self._asked.sha256:
                    raise self._other()
            return self._done, self._digest.hexdigest()
        except OSError as error:
            if fulldisk.is_full(error):
                raise files.no_room(error) from error
            raise Unkept(
                f"{self._asked.name} could not be stored", error.strerror or str(error),
                "look at the disk, then: corral models pulls resume",
            ) from error  # fmt: skip
        finally:
            self._stop.set()
            await asyncio.shield(asyncio.to_thread(self._close))

    def _other(self) -> BadModel:
        return BadModel(
            f"{self._asked.name} is not what it should be",
            f"its SHA-256 is {self._digest.hexdigest()[:16]}… and {self._asked.sha256[:16]}… was said",
            "pull it again; if it stays so, ask whoever publishes it",
        )

    async def _whole(self) -> None:
        tries, waited = 0, 0.0
        while not self._done or self._done < self._kept.bytes:
            before, error = self._done, None
            try:
                wait = await self._try()
            except NotReached as caught:
                wait, error = 0.0, caught
            if self._done > before:
                tries, waited = 0, 0.0
            if error is None and not wait:
                continue
            pauses = BUSY_S if isinstance(error, TooOften) else PAUSES_S
            wait = wait or pauses[min(tries, len(pauses) - 1)]
            tries, waited = tries + 1, waited + wait
            if waited > GIVE_UP_S:
                raise error or NotReached("the server puts us off again and again")
            if error is not None:
                self._said(f"{error.what}{f' ({error.why})' if error.why else ''}: tried again after {wait:.0f} s")
            await self._wait(wait)

    async def _try(self) -> float:
        """One request. Seconds that the server asks us to wait; 0: it went as far as it went."""
        headers = {}
        if self._done and not self._kept.validator and not self._asked.sha256:
            await self._anew("the server does not say by what to know this content")
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            if self._kept.validator:
                headers["If-Range"] = self._kept.validator
        async with self._web.get(self._asked.url, headers) as answer:
            if answer.status in (408, 425, 429) or answer.status >= 500:
                return pause(answer, self._said)
            await self._head(answer)
            await self._body(answer)
        return 0.0

    async def _head(self, answer: Answer) -> None:
        """What the server says of the file against what is known of it."""
        name = self._asked.name
        if answer.status in (401, 403):
            raise refused(answer, self._web, self._asked.url)
        if answer.status in (404, 410):
            raise NotFound(f"{answer.host} has no {name} any more", f"it answers {answer.status}")
        linked = answer.told.get("x-linked-etag", "").strip('"').lower()
        if self._asked.sha256 and re.fullmatch("[0-9a-f]{64}", linked) and linked != self._asked.sha256:
            raise Changed
        if answer.status == 416 and self._done:
            await self._anew("the server's file is shorter than what is here")
            return
        if answer.status not in (200, 206):
            raise Failed(f"{answer.host} does not give {name}", f"it answers {answer.status}")
        if answer.header("Content-Encoding") not in ("", "identity"):
            raise Failed(f"{answer.host} sends {name} in another coding", "the bytes of a model are taken as they are")
        total = await self._place(answer)
        if self._asked.bytes and total != self._asked.bytes:
            raise Changed
        self._kept = Kept(self._synced, total, _validator(answer), self._asked.sha256)

    async def _place(self, answer: Answer) -> int:
        """The file's length; where the answer's bytes do not go on where ours end, all begins anew."""
        name = self._asked.name
        if answer.status == 206:
            said = _RANGE.fullmatch(answer.header("Content-Range").strip())
            if said is None or int(said[1]) != self._done:
                await self._anew("the server sent another piece than was asked for")
                raise NotReached(f"{answer.host} answers with another piece of {name} than was asked for")
            other = not self._asked.sha256 and self._done and self._kept.validator != _validator(answer)
            if other or (self._kept.bytes and int(said[3]) != self._kept.bytes):
                await self._anew("it has changed on the server")
                raise NotReached(f"{name} is another one now")
            return int(said[3])
        length = answer.header("Content-Length")
        if not re.fullmatch(r"\d{1,18}", length) or not int(length):
            if not self._asked.bytes:
                raise Failed(f"{answer.host} does not say how long {name} is", "no room can be kept for it")
            length = str(self._asked.bytes)
        if self._done:
            same = self._kept.validator and self._kept.validator == _validator(answer)
            await self._anew("the server cannot go on where it was" if same else "it has changed on the server")
        return int(length)

    async def _body(self, answer: Answer) -> None:
        if answer.status == 416:
            return
        held = bytearray()
        loop = asyncio.get_running_loop()
        last = loop.time()
        try:
            while piece := await answer.piece():
                await self._take(len(piece))
                held += piece
                if self._done + len(held) > self._kept.bytes:
                    await asyncio.to_thread(self._begin_anew)
                    held.clear()
                    raise BadModel(f"{answer.host} sends more of {self._asked.name} than it said")
                self._told(self._done + len(held))
                if len(held) >= PIECE or loop.time() - last > 0.5:
                    last = loop.time()
                    await self._put(held)
        finally:
            if held and not self._stop.is_set():
                await asyncio.shield(self._put(held))
        if self._done < self._kept.bytes:
            came = f"{self._done} of {self._kept.bytes} bytes"
            raise NotReached(f"{answer.host} ended {self._asked.name} early", came)

    async def _put(self, held: bytearray) -> None:
        """Write and hash what is held, and empty it."""
        data = bytes(held)
        held.clear()
        magic = b"GGUF"[self._done :]
        if data[: len(magic)] != magic[: len(data)]:
            raise BadModel(f"{self._asked.name} is no GGUF file", looks_like(data), "see what the server has there")
        await asyncio.to_thread(self._write, data)
        self._told(self._done)

    async def _anew(self, why: str) -> None:
        """Nothing of what is here counts. Raises `Failed` if that was so too often."""
        self._anews += 1
        if self._anews > ANEW:
            name = self._asked.name
            raise Failed(f"{name} is not to be had", f"it began anew {ANEW} times: {why}", "ask who serves it")
        self._said(f"{self._asked.name}: {why}; it begins anew")
        await asyncio.to_thread(self._begin_anew)

    # ---------------------------------------------------------------------------------------- in a thread

    def _open(self) -> None:
        with self._lock:
            if not self._stop.is_set():
                self._read()

    def _read(self) -> None:
        """Open the file as far as it counts, and hash that."""
        kept = read_kept(self._path)
        with contextlib.suppress(FileNotFoundError):
            if self._path.lstat().st_nlink > 1:
                self._path.unlink()  # it is a model's by now, and no more ours to write to
            else:
                self._path.chmod(0o600)  # an import that broke off has closed it already
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        there = os.fstat(self._fd).st_size
        fits = kept is not None and kept.sha256 in ("", self._asked.sha256) and self._asked.bytes in (0, kept.bytes)
        count = min(there, kept.synced) if kept is not None and fits else 0
        os.ftruncate(self._fd, count)
        self._digest, self._done, self._synced = hashlib.sha256(), 0, count
        while self._done < count and not self._stop.is_set():
            data = os.pread(self._fd, min(files.CHUNK, count - self._done), self._done)
            if not data:
                break
            self._digest.update(data)
            self._done += len(data)
        self._old = bool(self._done)
        if kept is not None and fits:
            self._kept = kept
        os.lseek(self._fd, self._done, os.SEEK_SET)
        self._told(self._done)

    def _write(self, data: bytes) -> None:
        with self._lock:
            if self._fd < 0:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(self._fd, view) :]
            self._digest.update(data)
            self._done += len(data)
            if self._done - self._synced < SYNC:
                return
            self._sync()
            free = shutil.disk_usage(self._path.parent).free
            if free < self._spare() // 2:
                raise NoRoom(
                    "the disk is nearly full", f"{free >> 20} MiB are free",
                    "make room, then: corral models pulls resume",
                )  # fmt: skip

    def _sync(self) -> None:
        """What is there counts from now on."""
        os.fsync(self._fd)
        self._synced = self._done
        self._kept = msgspec.structs.replace(self._kept, synced=self._synced)
        write_kept(self._path, self._kept)

    def _begin_anew(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            beside(self._path).unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
            os.lseek(self._fd, 0, os.SEEK_SET)
            self._digest, self._done, self._synced = hashlib.sha256(), 0, 0
        self._told(0)

    def _close(self) -> None:
        with self._lock:
            if self._fd < 0:
                return
            with contextlib.suppress(OSError):  # a full disk: what counts is what was synced before
                if self._done > self._synced:
                    self._sync()
            os.close(self._fd)
            self._fd = -1


def beside(path: Path) -> Path:
    """Where it lies what is known of the bytes of `path`."""
    return path.with_name(path.name + ".json")


def read_kept(path: Path) -> Kept | None:
    """None if there is nothing, or nothing that can be read."""
    try:
        return msgspec.convert(json.loads(beside(path).read_bytes()), Kept)
    except (OSError, ValueError, msgspec.ValidationError):
        return None


def write_kept(path: Path, kept: Kept) -> None:
    """Whole or not at all. Raises OSError."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(msgspec.json.encode(kept))
    new.replace(beside(path))


def _validator(answer: Answer) -> str:
    """What the server knows this very content by: a strong ETag, or a date."""
    etag = answer.header("ETag").strip()
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag):
        return etag
    date = answer.header("Last-Modified").strip()
    return date if date.isprintable() and len(date) < 60 else ""
