"""`corral audit verify FILE`: the verification of an exported file where no daemon is."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from core.errors import Failed, Invalid
from core.nouns import FileReport
from tui.command import Told, options
from tui.lines import Progress, as_json, local, say
from tui.plain import line

KEYS_LIMIT = 1 << 20


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
    progress = Progress("verify")
    try:
        if older is None:
            found = verify(_lines(file, progress), public)[0].report
        else:
            found = compare(lambda: _lines(file, progress), lambda: _lines(older), public)
    finally:
        progress.end()
    return msgspec.structs.replace(found, seconds=round(time.monotonic() - started, 3))


def _lines(name: str, progress: Progress | None = None) -> Iterator[bytes]:
    from core.proof.verify import lines_of

    try:
        with sys.stdin.buffer if name == "-" else Path(name).open("rb") as file:
            size, read = os.fstat(file.fileno()).st_size, 0
            for each in lines_of(file):
                yield each
                read += len(each)
                if progress is not None and size:  # a pipe does not say how much will come
                    progress.show(min(read, size), size)
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
    for note in found.notes:
        say(f"note: {line(note)}")
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
