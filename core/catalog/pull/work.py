"""One pull as it runs: its files one after the other, their progress each second, then the import."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec

from core.catalog.pull import choice
from core.catalog.pull.download import Asked, Changed, Download, beside
from core.catalog.pull.find import Ask, Finder, Place
from core.catalog.pull.pace import Cap
from core.catalog.pull.rows import Row
from core.catalog.pull.shelf import Shelf
from core.catalog.pull.source import Hub
from core.catalog.pull.web import NotReached, Web
from core.catalog.rate import Rate
from core.errors import Failed
from core.nouns import Pull, PullFile

TICK_S = 1.0
"""Progress is told so often, and only where there is some."""
AGAIN_S = (1, 2, 5, 10, 30, 60)
"""Between tries to ask what a hub has; the last one again and again."""
CHANGES = 3
"""A source that changes more often while it is pulled is not to be had."""
NOTES = 8

Put = Callable[[Row], Awaitable[None]]


class Room(NamedTuple):
    """Where a pull's bytes come to lie, and what is promised to them. `wrote` says how many lie there, `resize` has so
    many promised from now on and raises `NoRoom`, `Away`. `spare` tells the bytes that are kept free on that disk."""

    folder: Path
    wrote: Callable[[int], None]
    resize: Callable[[int], Awaitable[None]]
    spare: Callable[[], int]


class Work:
    """One run of a pull. `put` keeps a row, `tell` tells of its progress alone."""

    def __init__(
        self, row: Row, secret: str, room: Room, finder: Finder, shelf: Shelf, net: Web, *caps: Cap, put: Put,
        tell: Callable[[Pull], None], wait: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:  # fmt: skip
        self.row, self._secret, self._room, self._finder, self._net = row, secret, room, finder, net
        self._shelf, self._put, self._tell, self._wait = shelf, put, tell, wait
        self._caps, self._rate = caps, Rate()
        self._now = self._done = 0
        """The file that comes, and its bytes that are there."""

    async def run(self) -> list[PullFile]:
        """All files, whole and what they should be; the row says how far. Raises what `Download.run` does."""
        ticker = asyncio.create_task(self._tick())
        try:
            if self.row.begun:
                await self._look_again()
            await self._change(begun=True)
            for _ in range(CHANGES):
                try:
                    return await self._files()
                except Changed:
                    await self._look_again(changed=True)
            raise Failed(f"{self.row.pull.source} changes while it is pulled", f"{CHANGES} times", "try it later")
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)

    async def _files(self) -> list[PullFile]:
        self._room.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        query = f"?{self._secret}" if self.row.secret and not isinstance(self.row.source, Hub) else ""
        got = []
        for n, file in enumerate(self.row.pull.files):
            self._now, self._done = n, 0
            if file.stored:
                got.append(msgspec.structs.replace(file, done=file.bytes))
                continue
            asked = Asked(
                url=self.row.urls[file.name] + query, name=file.name.rpartition("/")[2], bytes=file.bytes,
                sha256=file.sha256,
            )  # fmt: skip
            download = Download(
                self._net, asked, self._room.folder, told=self._came, said=self._said, take=self._take,
                wait=self._wait, spare=self._room.spare,
            )  # fmt: skip
            size, sha256 = await download.run()
            got.append(msgspec.structs.replace(file, bytes=size, sha256=sha256, done=size))
        return got

    async def _take(self, count: int) -> None:
        for cap in self._caps:
            await cap.take(count)

    # ---------------------------------------------------------------------------------------- what the source has now

    async def _look_again(self, *, changed: bool = False) -> None:
        """Ask anew what the source has. Files that are others by now begin anew, and it is said. While the network is
        away this waits."""
        row, tries = self.row, 0
        known = row.pull.files[0].sha256 if len(row.pull.files) == 1 else ""
        ask = Ask(row.source, row.actor, self._secret, sha256=known)
        while True:
            try:
                found = await self._finder.find(ask, Place(row.endpoint, row.trusted), self._net)
                break
            except NotReached as error:
                wait = AGAIN_S[min(tries, len(AGAIN_S) - 1)]
                self._said(f"{error.what}: tried again after {wait} s")
                await self._wait(wait)
                tries += 1
        groups = [choice.Group(each.quantization, each.files) for each in found.plan.choices]
        source = row.source
        if isinstance(source, Hub):
            same = choice.wanted(groups, "" if source.path else row.handle, source.path, str(source))
        else:
            same = groups[0]
        assert same is not None
        beside = [choice.projector(found.plan.projectors, file.name) for file in row.pull.files if file.kind]
        files = await self._shelf.marked((*same.files, *beside))
        before = {file.name: (file.bytes, file.sha256) for file in row.pull.files}
        other = [file.name for file in files if before.get(file.name) != (file.bytes, file.sha256)]
        if other:
            self._said(f"{', '.join(other[:3])}: changed on the server, so that it begins anew")
            self._forget(before.keys() - ({file.name for file in files} - set(other)))
            self._room.wrote(0)
        elif changed:
            raise Failed(
                f"{row.pull.source} contradicts itself", "what it says of a file is not what it sends", "try it later"
            )
        await self._room.resize(sum(file.bytes for file in files if not file.stored))
        await self._change(
            urls={file.name: found.urls[file.name] for file in files},
            pull=msgspec.structs.replace(
                self.row.pull, files=files, revision=found.plan.revision,
                bytes_total=sum(file.bytes for file in files), bytes_done=0 if other else self.row.pull.bytes_done,
            ),
        )  # fmt: skip

    def _forget(self, names: Iterable[str]) -> None:
        """Drop what no file is any more."""
        for name in names:
            path = self._room.folder / name.rpartition("/")[2]
            beside(path).unlink(missing_ok=True)
            path.unlink(missing_ok=True)

    # ---------------------------------------------------------------------------------------- what is told

    def _came(self, done: int) -> None:
        """So many bytes of the file that comes are there. It may be called in a thread."""
        self._done = done
        self._room.wrote(done + sum(file.bytes for file in self.row.pull.files[: self._now] if not file.stored))

    def _pull(self) -> Pull:
        pull = self.row.pull
        files = [
            msgspec.structs.replace(
                file, done=file.bytes if n < self._now or file.stored else self._done if n == self._now else 0
            )
            for n, file in enumerate(pull.files)
        ]
        done = sum(file.done for file in files)
        self._rate.saw(done)
        rate = self._rate.now
        left = (pull.bytes_total - done) / rate if rate > 0 else None
        return msgspec.structs.replace(pull, files=tuple(files), bytes_done=done, rate=rate, left_s=left)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            new = self._pull()
            if new != self.row.pull:
                self.row = msgspec.structs.replace(self.row, pull=new)
                self._tell(new)

    def _said(self, words: str) -> None:
        """A sentence on what happened; the newest few are kept. It may be told from a download's own task only."""
        notes = (*self.row.pull.notes, words)[-NOTES:]
        self.row = msgspec.structs.replace(self.row, pull=msgspec.structs.replace(self.row.pull, notes=notes))
        self._tell(self.row.pull)

    async def _change(self, **fields: object) -> None:
        self.row = msgspec.structs.replace(self.row, **fields)
        await self._put(self.row)
