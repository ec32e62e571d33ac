"""Files that this program writes as its user: whole or not at all, over nothing that is there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from core.errors import Conflict, Failed, Invalid

if TYPE_CHECKING:
    from core.proof.statements import End

TAIL = 4096
"""Bytes that hold the last line of an exported file."""
Watch = Callable[[int, int], object]
"""Told how many lines and bytes were written."""


async def write(
    pieces: AsyncIterator[bytes], out: Path | None, *, replace: bool = False, watch: Watch | None = None
) -> bytes:
    """Write an export to `out`, or to standard output; its last bytes. `replace`: also over a file that is there.
    Raises `CorralError`."""
    if out is None:
        tail = await _copy(pieces, sys.stdout.buffer, watch)
        ended(tail)
        return tail
    with _part(out) as (part, file):
        tail = await _copy(pieces, file, watch)
        ended(tail)  # before it gets its name
        await _kept(file, part, out, replace)
    return tail


async def _kept(file: IO[bytes], part: Path, out: Path, replace: bool) -> None:
    """`_keep` in a thread; a cancellation waits for it, and takes a new file away again."""
    work = asyncio.ensure_future(asyncio.to_thread(_keep, file, part, out, replace))
    try:
        await asyncio.shield(work)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            await work
            if not replace:
                out.unlink()
        raise


def make(out: Path, text: bytes, *, replace: bool = False) -> None:
    """Write a small file. Raises `CorralError`."""
    with _part(out) as (part, file):
        file.write(text)
        _keep(file, part, out, replace)


@contextlib.contextmanager
def _part(out: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file of mode 0600 beside `out`, which is gone afterwards unless `_keep` gave it its name."""
    if not out.name:
        raise Invalid(f"'{out}' is no file", "it is a folder", "name a file in it")
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            yield part, file
    except FileExistsError as error:
        raise Conflict(
            f"{out} is there already", "nothing was overwritten", "name another file, or say --yes"
        ) from error
    except OSError as error:
        raise Failed(f"{out} could not be written", error.strerror or str(error), "nothing of it was kept") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _keep(file: IO[bytes], part: Path, out: Path, replace: bool) -> None:
    file.flush()
    os.fsync(file.fileno())
    if replace:
        part.rename(out)
    else:
        os.link(part, out)


async def _copy(pieces: AsyncIterator[bytes], file: IO[bytes], watch: Watch | None) -> bytes:
    tail, lines, size = b"", 0, 0
    async with contextlib.aclosing(pieces) as every:  # type: ignore[type-var]
        async for piece in every:
            await asyncio.to_thread(file.write, piece)  # a slow disk must not hold up who watches
            tail = (tail + piece)[-TAIL:]
            lines, size = lines + piece.count(b"\n"), size + len(piece)
            if watch is not None:
                watch(lines, size)
    return tail


def ended(tail: bytes) -> End:
    """The last line of an export. Raises `Failed` if it is not there: the export was cut off."""
    from core.proof.statements import End, parse

    with contextlib.suppress(ValueError, IndexError):
        found = parse(tail.split(b"\n")[-2]) if tail.endswith(b"\n") else None
        if isinstance(found, End):
            return found
    raise Failed("the export was cut off", "its last line is missing", "try again, and see the daemon's log")
