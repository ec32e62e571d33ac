"""Reads records back out of an archive's file: hashed whole once, then block by block against the hashes of that time.

So nothing of a file that is not as it was sealed is ever read, in bounded memory and in steps that nobody notices.
"""

from __future__ import annotations

import hashlib
import os
import re
import sqlite3
import stat
from collections.abc import Callable
from typing import IO, Any, NamedTuple

import msgspec

from core.audit.chain import COLUMNS, SELECT, Row
from core.audit.search import Wanted, conditions
from core.nouns import AuditArchive
from core.proof.encoding import RECORD
from core.proof.verify import LINE_LIMIT

BLOCK = 256 << 10
"""Bytes that are read and hashed at once: some 1000 records."""
_BEGIN = f'["{RECORD}",'.encode()
_LINE = re.compile(rb'^%b(\d+),"([^"\\]*)"' % re.escape(_BEGIN), re.M)
_TABLE = f"CREATE TABLE audit (seq INTEGER PRIMARY KEY, {', '.join(COLUMNS[1:])})"
_INSERT = f"INSERT INTO audit VALUES ({', '.join('?' * len(COLUMNS))})"  # noqa: S608 - constants only


class Block(NamedTuple):
    """Some lines: where they are, their hash, and the seqs and times of the records among them."""

    offset: int
    size: int
    digest: bytes
    first: int
    last: int
    earliest: str
    latest: str


class Archived:
    """One archive. `verify` until it is `ready` or `wrong`, then `search`. All methods block."""

    def __init__(self, archive: AuditArchive) -> None:
        self.archive = archive
        self.blocks: list[Block] = []
        self.ready = False
        self.wrong = ""
        """Why nothing is read of it; "" if it may be."""
        self.at = 0
        """Bytes that were hashed."""
        self._sha = hashlib.sha256()
        self._known: tuple[int, ...] = ()

    def verify(self, enough: Callable[[], bool]) -> None:
        """Hash on, a block at least, until all is or `enough`."""
        if self.ready:
            return
        try:
            with self._open() as file:
                if self.wrong:
                    return
                file.seek(self.at)
                while self.at < self.archive.bytes:
                    self._hash(file)
                    if self.wrong or enough():
                        return
        except OSError as error:  # looked for again at the next try: it may be mounted by then
            self.wrong, self._known = error.strerror or str(error), ()
            return
        if self._sha.hexdigest() != self.archive.digest:
            self._give_up("it is another file than the one that was sealed")
        else:
            self.ready = True

    def _open(self) -> IO[bytes]:
        """The file, which may be another one than at the last try. Raises OSError."""
        file = open(self.archive.file, "rb", opener=_unwaiting)  # noqa: SIM115 - who calls closes it
        found = os.fstat(file.fileno())
        known = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if known != self._known:
            self._known, self.wrong, self.at, self.blocks = known, "", 0, []
            self._sha = hashlib.sha256()
            if not stat.S_ISREG(found.st_mode):
                self.wrong = "it is no file"
            elif found.st_size != self.archive.bytes:
                self._give_up("it has another size than when it was sealed")
        return file

    def _hash(self, file: IO[bytes]) -> None:
        text = file.read(BLOCK)
        if not text.endswith(b"\n"):
            text += file.readline(LINE_LIMIT)
        if not text:
            self._give_up("it was cut while it was read")
            return
        self._sha.update(text)
        found = _LINE.findall(text)
        if found:
            times = [each[1].decode("ascii", "replace") for each in found]
            self.blocks.append(
                Block(self.at, len(text), hashlib.sha256(text).digest(), int(found[0][0]), int(found[-1][0]),
                      min(times), max(times))
            )  # fmt: skip
        self.at += len(text)

    def _give_up(self, why: str) -> None:
        self.wrong, self.ready, self.blocks = why, False, []

    def search(self, block: Block, asked: Wanted, low: int, high: int, limit: int, *, upwards: bool) -> list[Row]:
        """The records of `block` from seq `low` to `high` that fit, in the order of the search. Sets `wrong` if the
        block is not what was hashed."""
        if (asked.since and block.latest < asked.since) or (asked.until and block.earliest > asked.until):
            return []
        try:
            with open(self.archive.file, "rb", opener=_unwaiting) as file:
                file.seek(block.offset)
                text = file.read(block.size) or b""
        except OSError as error:
            self._known = ()
            self._give_up(error.strerror or str(error))
            return []
        if hashlib.sha256(text).digest() != block.digest:
            self._known = ()
            self._give_up("it was changed while it was read")
            return []
        return _fitting(_rows(text), asked, low, high, limit, "ASC" if upwards else "DESC")


def _unwaiting(path: str, flags: int) -> int:
    """Opens, and never waits for a pipe's other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _rows(text: bytes) -> list[Row]:
    found = []
    for line in text.split(b"\n"):
        if line.startswith(_BEGIN):
            fields = msgspec.json.decode(line)
            found.append((*fields[1:], hashlib.sha256(line).hexdigest()))
    return found


def _fitting(rows: list[Row], asked: Wanted, low: int, high: int, limit: int, order: str) -> list[Row]:
    """Asked of SQLite in memory: the words of a filter mean here what they mean in the database."""
    where, values = conditions(asked)
    clause = " AND ".join(["seq BETWEEN ? AND ?", *where])
    db = sqlite3.connect(":memory:", isolation_level=None)
    try:
        db.execute(_TABLE)
        db.execute("BEGIN")
        db.executemany(_INSERT, rows)
        wanted: list[Any] = [low, high, *values, limit]
        return db.execute(f"{SELECT} WHERE {clause} ORDER BY seq {order} LIMIT ?", wanted).fetchall()
    finally:
        db.close()
