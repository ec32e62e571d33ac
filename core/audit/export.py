"""Writes the trail as a file that is verified elsewhere: header, keys, records with checkpoints between them, end."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from urllib.parse import quote

from core.audit.chain import SELECT
from core.audit.log import Audit, moment
from core.audit.report import gather
from core.audit.seals import sealed_in
from core.audit.signer import Signer
from core.errors import StoreError
from core.nouns import AuditHistory
from core.paths import Paths
from core.proof.encoding import GENESIS, encode
from core.proof.statements import End, Header

PAGE = 500
"""Records that are read at once: others wait for the interpreter no longer than some 5 ms, and no reader holds the
write-ahead log."""


class Exporter:
    """One a daemon."""

    def __init__(
        self, audit: Audit, signer: Signer, paths: Paths, database_id: str, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._audit, self._signer, self._paths, self._database, self._clock = audit, signer, paths, database_id, clock

    async def pieces(self, since: str | None = None) -> AsyncIterator[bytes]:
        """The file, from the first record whose time is `since` or later (ISO 8601, or seconds since the epoch; None:
        from the first), up to what there is now. A checkpoint is signed first. Raises `Invalid` and `StoreError`."""
        start = moment(since) if since else ""
        with contextlib.suppress(StoreError):  # then the newest records are not vouched for, and the file says so
            await self._signer.checkpoint()
        head = self._audit.head
        last = head.seq if head else 0
        try:
            db = await asyncio.to_thread(self._open)
        except sqlite3.Error as error:
            raise StoreError("the trail cannot be read", str(error), "see `corral status`") from error
        try:
            first = await asyncio.to_thread(_first, db, start, last)
            async for piece in self._file(db, start, first, last):
                yield piece
        except sqlite3.Error as error:
            raise StoreError("the trail cannot be read", str(error), "see `corral status`") from error
        finally:
            await asyncio.shield(asyncio.to_thread(db.close))

    async def between(self, first: int, last: int) -> AsyncIterator[bytes]:
        """The file with the records `first` to `last`. Raises `StoreError`."""
        try:
            db = await asyncio.to_thread(self._open)
            try:
                async for piece in self._file(db, "", first, last):
                    yield piece
            finally:
                await asyncio.shield(asyncio.to_thread(db.close))
        except sqlite3.Error as error:
            raise StoreError("the trail cannot be read", str(error), "see `corral status`") from error

    async def report(self, since: str) -> AuditHistory:
        """What the trail says of the time since `since` (as the trail writes it; "": all). Raises `StoreError`."""
        return await asyncio.to_thread(gather, self._paths, since)

    def _open(self) -> sqlite3.Connection:
        place = f"file:{quote(str(self._paths.database))}?mode=ro"
        db = sqlite3.connect(place, uri=True, timeout=10, isolation_level=None, check_same_thread=False)
        # Somebody may have written bytes into a text: the file shows what is there, and does not verify.
        db.text_factory = lambda raw: raw.decode("utf-8", "replace")
        return db

    async def _file(self, db: sqlite3.Connection, start: str, first: int, last: int) -> AsyncIterator[bytes]:
        sha = hashlib.sha256()
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        head = [Header(self._signer.installation, self._database, first, now, start), *self._signer.keys]
        piece = b"".join(each.line() + b"\n" for each in head)
        sha.update(piece)
        yield piece
        before = await asyncio.to_thread(_hash_before, db, first)
        records = checkpoints = 0
        at = first - 1
        while True:
            page = await asyncio.to_thread(_page, db, at, last)
            if page.records == 0:
                break
            at, before = page.at, page.hash
            records, checkpoints = records + page.records, checkpoints + page.checkpoints
            sha.update(page.text)
            yield page.text
        blank = End(self._signer.installation, max(at, first - 1), before, records, checkpoints, sha.hexdigest(), now,
                    "", "")  # fmt: skip
        end: End = await self._signer.sign_with(blank)
        yield end.line() + b"\n"


class _Page:
    """Some records as lines, with the checkpoints that follow them."""

    def __init__(self) -> None:
        self.text, self.records, self.checkpoints, self.at, self.hash = b"", 0, 0, 0, ""


def _first(db: sqlite3.Connection, start: str, last: int) -> int:
    # Not those that an archive has: they are being removed.
    sql = "SELECT min(seq) FROM audit WHERE time >= ? AND seq > ? AND seq <= ?"
    row = db.execute(sql, (start, sealed_in(db).last, last)).fetchone()
    return row[0] if row[0] is not None else last + 1


def _hash_before(db: sqlite3.Connection, first: int) -> str:
    sealed = sealed_in(db)
    if sealed.last and first == sealed.last + 1:
        return sealed.hash
    row = db.execute("SELECT hash FROM audit WHERE seq = ?", (first - 1,)).fetchone()
    return row[0] if row else GENESIS


def _page(db: sqlite3.Connection, after: int, last: int) -> _Page:
    page = _Page()
    rows = db.execute(SELECT + " WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", (after, last, PAGE)).fetchall()
    if not rows:
        return page
    page.at = rows[-1][0]
    sql = "SELECT seq, line FROM audit_checkpoints WHERE seq > ? AND seq <= ? ORDER BY number"
    signed: dict[int, list[bytes]] = {}
    for seq, line in db.execute(sql, (after, page.at)):
        signed.setdefault(seq, []).append(line.encode())
    lines = []
    for row in rows:
        lines.append(encode(row))
        lines += signed.get(row[0], [])
        page.checkpoints += len(signed.get(row[0], []))
    page.records = len(rows)
    page.hash = hashlib.sha256(encode(rows[-1])).hexdigest()
    page.text = b"\n".join(lines) + b"\n"
    return page
