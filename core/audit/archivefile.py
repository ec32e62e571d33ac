"""An archive's file: made under another name, named when it is whole, compared with its seal."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from core.audit.verify import LOOKED, Watch
from core.nouns import AuditArchive, ChainFault
from core.proof.keys import flush_folder
from core.proof.verify import lines_of, verify

log = logging.getLogger(__name__)


def part_of(file: Path) -> Path:
    return file.with_name(f".{file.name}.part")


def create(part: Path) -> IO[bytes]:
    """A new file, readable by its owner alone. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        part.unlink()  # of one that was never finished
    return open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb")


def flush(out: IO[bytes]) -> None:
    out.flush()
    os.fchmod(out.fileno(), 0o400)
    os.fsync(out.fileno())


def name(part: Path, file: Path) -> None:
    """Give it its name, over nothing that is there. Raises OSError."""
    os.link(part, file)
    part.unlink()
    flush_folder(file.parent)


def forget(file: Path) -> None:
    """Remove what was written for an archive that is not made."""
    for each in (part_of(file), file):
        try:
            each.unlink(missing_ok=True)
        except OSError as error:
            log.error("%s could not be removed: %s", each, error)


def faults(archives: tuple[AuditArchive, ...], public: list[str], watch: Watch | None) -> list[ChainFault]:
    """What is wrong with these, all that there are: each is read whole and compared with its seal, and the chain goes
    on from one to the next."""
    found, before = [], ""
    for each in archives:
        told = _unlike(each, before, public, watch, archives[-1].last)
        before = each.hash
        if told:
            message = (
                f"the archive of records {each.first} to {each.last}, {each.file}, is not as it was sealed: {told}"
            )
            found.append(ChainFault(wrong=each.first, how="archive", message=message))
    return found


def _unlike(each: AuditArchive, before: str, public: list[str], watch: Watch | None, of: int) -> str:
    """What is wrong with one file; "" for nothing."""
    sha = hashlib.sha256()

    def lines(file: IO[bytes]) -> Iterator[bytes]:
        for n, line in enumerate(lines_of(file)):
            sha.update(line)
            if watch is not None and n % LOOKED == 0:
                watch(min(each.first + n, each.last), of)
            yield line

    try:
        with Path(each.file).open("rb") as file:
            found, _ = verify(lines(file), public)
    except OSError as error:
        return error.strerror or str(error)
    report = found.report
    if sha.hexdigest() != each.digest:
        return "it is another file" if report.ok else report.message
    ends = (report.first, report.last, report.head) == (each.first, each.last, each.hash)
    return "" if ends and before in ("", found.began) else "it does not go on from the one before"
