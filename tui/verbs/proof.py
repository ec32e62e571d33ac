"""`corral audit`: the trail as a file, and the verification of such a file where no daemon is."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import msgspec

from core.errors import Conflict, Failed, Invalid
from core.nouns import FileReport
from tui.command import Told, options
from tui.lines import as_json, local, say
from tui.plain import line

if TYPE_CHECKING:
    from core.proof.statements import End

KEYS_LIMIT = 1 << 20
TAIL = 4096
"""Bytes that hold the last line of an exported file."""


async def write(pieces: AsyncIterator[bytes], out: Path | None) -> bytes:
    """Write an export to `out`, whole or not at all, or to standard output; its last bytes. Raises `CorralError`."""
    if out is None:
        tail = await _copy(pieces, sys.stdout.buffer)
        ended(tail)
        return tail
    with whole(out) as file:
        tail = await _copy(pieces, file)
        ended(tail)  # before it gets its name
    return tail


def make(out: Path, text: bytes) -> None:
    """Write a small file, whole or not at all. Raises `CorralError`."""
    with whole(out) as file:
        file.write(text)


@contextlib.contextmanager
def whole(out: Path) -> Iterator[IO[bytes]]:
    """A file of mode 0600 that gets its name when it is complete; one that is there is replaced with --yes alone."""
    part = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(fd)
        if options().yes:
            part.rename(out)
        else:
            os.link(part, out)
            part.unlink()
    except FileExistsError as error:
        raise Conflict(
            f"{out} is there already", "nothing was overwritten", "name another file, or say --yes"
        ) from error
    except OSError as error:
        raise Failed(f"{out} could not be written", error.strerror or str(error), "nothing of it was kept") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


async def _copy(pieces: AsyncIterator[bytes], file: IO[bytes]) -> bytes:
    tail = b""
    async with contextlib.aclosing(pieces) as every:  # type: ignore[type-var]
        async for piece in every:
            file.write(piece)
            tail = (tail + piece)[-TAIL:]
    return tail


def ended(tail: bytes) -> End:
    """The last line of an export. Raises `Failed` if it is not there: the export was cut off."""
    from core.proof.statements import End, parse

    with contextlib.suppress(ValueError, IndexError):
        found = parse(tail.split(b"\n")[-2]) if tail.endswith(b"\n") else None
        if isinstance(found, End):
            return found
    raise Failed("the export was cut off", "its last line is missing", "try again, and see the daemon's log")


def trusted(given: tuple[str, ...]) -> list[str]:
    """The public keys that were named: each as text, or as a file with one a line. Raises `Invalid`."""
    from core.proof.keys import is_public

    found = []
    for each in given:
        if is_public(each):
            found.append(each)
            continue
        try:
            with Path(each).open("rb") as file:
                text = file.read(KEYS_LIMIT).decode("ascii")
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", "") or "it is no text"
            raise Invalid(f"{each!r} is no public key and no file with one", why, _HOW) from error
        keys = [row.strip() for row in text.splitlines() if row.strip() and not row.startswith("#")]
        if not keys or not all(map(is_public, keys)):
            raise Invalid(f"{each} holds no public key", "one a line, as `ed25519:` and 64 hex digits", _HOW)
        found += keys
    return found


_HOW = "`corral audit key show -q`, where the trail is written, says it"


def check(file: str, keys: tuple[str, ...], older: str | None) -> FileReport:
    """Verify `file`, and with `older` that it goes on from that one. Raises `CorralError`."""
    from core.proof.against import compare
    from core.proof.verify import verify

    public = trusted(keys)
    started = time.monotonic()
    if older is None:
        found = verify(_lines(file), public)[0].report
    else:
        found = compare(lambda: _lines(file), lambda: _lines(older), public)
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - started, 3))


def _lines(name: str) -> Iterator[bytes]:
    from core.proof.verify import lines_of

    try:
        with Path(name).open("rb") as file:
            yield from lines_of(file)
    except OSError as error:
        raise Told(Failed(f"{name} cannot be read", error.strerror or str(error), "is it the right file?")) from error


def tell(found: FileReport) -> None:
    """The report, for a person or as a document."""
    if options().json:
        as_json(found)
        return
    say(f"{found.records} records in {found.seconds} s: {line(found.message)}")
    for fault in found.faults if not found.ok else ():
        if fault.message not in found.message:
            say(f"also: {line(fault.message)} ({line(fault.how)})")
    if options().quiet or not found.installation:
        return
    say(f"installation {line(found.installation)}, exported {local(found.time)}"
        + (f", records since {local(found.since)}" if found.since else ""))  # fmt: skip
    if found.checkpoint:
        say(f"checkpoint {found.checkpoint}, signed {local(found.vouched_time)} by key {line(found.vouched_key)},"
            f" vouches for records {found.first} to {found.vouched}; {found.unvouched} after it")  # fmt: skip
    else:
        say("no checkpoint that a key you trust signed")
    for key in found.keys:
        say(f"key {key.number} {line(key.id)} {'trusted' if key.trusted else 'does not follow from what you trust'}")
    say(f"head {line(found.head)}")
