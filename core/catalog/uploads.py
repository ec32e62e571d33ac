"""Models on their way in from a caller whose files the daemon may not open: pieces are taken, or given up in time."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

from core import fulldisk
from core.catalog.taking import Source
from core.errors import Failed, Invalid, NotAllowed, NotFound
from core.nouns import Actor, ImportOptions

IDLE_S = 60.0
"""An upload of which nothing comes for so long is dropped: its client was killed or lost."""
FILES = 1000
PROGRESS_S = 0.2
"""Progress is told so often, not by piece."""


class Upload:
    """One upload: whose, what is expected, and what has come."""

    def __init__(
        self, actor: Actor, request: str, parts: Sequence[tuple[str, int]], folder: Path, source: Source,
        options: ImportOptions,
    ) -> None:  # fmt: skip
        self.actor, self.request, self.parts, self.folder = actor, request, list(parts), folder
        self.source, self.options = source, options
        self.have: set[int] = set()
        self.coming: set[int] = set()
        self.bytes: dict[int, int] = {}
        self.last = asyncio.get_running_loop().time()
        self.watch: asyncio.Task[None] | None = None
        self.over = False
        """It waits for nothing any more."""

    @property
    def done(self) -> int:
        """Bytes that have come."""
        return sum(self.bytes.values())


class Uploads:
    """Those that wait for files. `dropped` is called with the job of one that was given up."""

    def __init__(self, dropped: Callable[[str, Upload], Awaitable[None]], idle_s: float) -> None:
        self._dropped, self._idle_s = dropped, idle_s
        self._all: dict[str, Upload] = {}
        self._watches: set[asyncio.Task[None]] = set()

    def __contains__(self, job: str) -> bool:
        return job in self._all

    def begin(self, job: str, upload: Upload) -> None:
        """Wait for files. Raises OSError."""
        upload.folder.mkdir(mode=0o700)
        self._all[job] = upload
        upload.watch = asyncio.create_task(self._watch(job, upload))
        self._watches.add(upload.watch)
        upload.watch.add_done_callback(self._watches.discard)

    async def write(
        self, job: str, actor: Actor, n: int, pieces: AsyncIterator[bytes], progress: Callable[[int], None]
    ) -> Upload | None:
        """Take the bytes of file `n`; the upload if it is complete now, else None. `progress` gets the bytes of all
        files so far. A file that did not come whole may be sent again. Raises `NotFound`, `NotAllowed`, `Invalid`."""
        upload = self._all.get(job)
        if upload is None:
            raise NotFound(f"no upload {job!r} waits for files")
        if actor.uid != upload.actor.uid:
            raise NotAllowed(f"{actor.name} may not write to this upload", f"{upload.actor.name} began it")
        if not 0 <= n < len(upload.parts) or n in upload.have or n in upload.coming:
            raise Invalid(f"file {n} is not expected")
        name, size = upload.parts[n]
        upload.coming.add(n)
        try:
            await self._take(upload, n, pieces, progress)
            if self._all.get(job) is not upload:
                raise NotFound(f"the upload {job!r} has ended meanwhile")
            if upload.bytes[n] != size:
                raise Invalid(f"{name} has another size than was said", f"{upload.bytes[n]} instead of {size} bytes")
        except BaseException:
            upload.bytes.pop(n, None)
            (upload.folder / name).unlink(missing_ok=True)
            raise
        finally:
            upload.coming.discard(n)
        upload.have.add(n)
        return self.end(job) if len(upload.have) == len(upload.parts) else None

    async def _take(
        self, upload: Upload, n: int, pieces: AsyncIterator[bytes], progress: Callable[[int], None]
    ) -> None:
        name, size = upload.parts[n]
        upload.bytes[n] = 0
        told = upload.last
        try:
            with (upload.folder / name).open("wb") as out:
                async for piece in pieces:
                    if upload.over:  # its file has no name any more, and would grow on with nobody's room
                        return
                    upload.last = asyncio.get_running_loop().time()
                    upload.bytes[n] += len(piece)
                    if upload.bytes[n] > size:
                        return
                    await asyncio.to_thread(out.write, piece)
                    if upload.last - told >= PROGRESS_S:
                        told = upload.last
                        progress(upload.done)
        except FileNotFoundError as error:
            raise NotFound("the upload has ended meanwhile") from error
        except ConnectionError as error:
            raise Failed(f"the upload of {name} broke off", str(error)) from error
        except OSError as error:
            raise fulldisk.fault(error, f"{name} could not be stored") from error

    def end(self, job: str) -> Upload | None:
        """It waits for nothing any more; None if it did not. Its folder is the caller's now."""
        upload = self._all.pop(job, None)
        if upload is not None:
            upload.over = True
        if upload is not None and upload.watch is not None and upload.watch is not asyncio.current_task():
            upload.watch.cancel()
        return upload

    async def close(self) -> None:
        """Forget them; the next daemon removes their folders."""
        for job in list(self._all):
            self.end(job)
        await asyncio.gather(*self._watches, return_exceptions=True)

    async def _watch(self, job: str, upload: Upload) -> None:
        loop = asyncio.get_running_loop()
        while (left := upload.last + self._idle_s - loop.time()) > 0:  # noqa: ASYNC110 - each piece moves the end
            await asyncio.sleep(left)
        self.end(job)
        try:
            await self._dropped(job, upload)
        finally:
            await asyncio.to_thread(shutil.rmtree, upload.folder, True)
