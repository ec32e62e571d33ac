"""Feeds the sinks: each on its own, with back-off, from the trail itself, which is the spool.

A sink keeps its place in the trail, so nothing is lost and nothing is kept twice. How far it may lag is bounded:
beyond `spool_records` it is full, which is said in every status and recorded.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import msgspec

from core.audit.log import Audit
from core.audit.outside import replace
from core.audit.sinks.journal import Journal
from core.audit.sinks.jsonfile import JsonFile
from core.audit.sinks.lines import Batch, Cursor, Item, latest, next_batch
from core.audit.sinks.syslog import Syslog
from core.errors import CorralError, StoreError
from core.nouns import CORRAL, AuditRecord, SinkStatus
from core.paths import Paths
from core.settings import AuditTable, SinksTable
from core.store import Store

log = logging.getLogger(__name__)

SEND_S = 60.0
BACKOFF_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
IDLE_S = 5.0
"""A checkpoint that follows its records is sent after so long at most."""
KEEP_S = 1.0
"""The places of all sinks are written to audit.sinks this often: who is killed sends so much again."""


class Sink(Protocol):
    """Where lines go."""

    name: str

    async def send(self, items: Sequence[Item]) -> None:
        """Deliver all of them. Raises OSError; then all of them are sent again. With none: look after what was sent."""

    async def close(self) -> None: ...


def sinks_of(table: SinksTable) -> list[Sink]:
    """Those that corral.toml names. Raises `Invalid`."""
    found: list[Sink] = []
    if table.file:
        found.append(JsonFile(table.file, append_only=table.file_append_only))
    if table.journald:
        found.append(Journal())
    if table.syslog:
        found.append(Syslog(table.syslog, ca=table.syslog_ca, cert=table.syslog_cert, key=table.syslog_key))
    return found


class Feed:
    """One sink and its place in the trail."""

    def __init__(
        self, sink: Sink, store: Store, audit: Audit, limit: Callable[[], int], cursor: Cursor | None,
        pause: Callable[[float], Awaitable[None]], clock: Callable[[], float], full: bool = False,
    ) -> None:  # fmt: skip
        """`full`: it was recorded to be so."""
        self.sink, self._store, self._audit, self._limit = sink, store, audit, limit
        self.cursor = cursor
        self._pause, self._clock = pause, clock
        self.news = asyncio.Event()
        self._failures = 0
        self._why = self._broken = ""
        self._since = 0.0
        self.full = full

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                self.news.clear()
                try:
                    more = await self.step()
                except (CorralError, ValueError) as error:
                    log.error("the sink %s cannot read the trail: %s", self.sink.name, error)
                    more = False
                await self._measure()
                if self._failures:
                    await self._pause(BACKOFF_S[min(self._failures, len(BACKOFF_S)) - 1])
                elif not more:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(IDLE_S):
                            await self.news.wait()
        finally:
            await self.sink.close()

    async def begin(self) -> Cursor:
        """Its place in the trail: for a new one, now. Raises `StoreError`."""
        if self.cursor is None:
            self.cursor = await self._store.read(latest)
        return self.cursor

    async def step(self) -> bool:
        """Send one batch; whether there was anything. A sink that refuses is noted. Raises `StoreError`."""
        cursor = await self.begin()
        now = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        batch: Batch = await self._store.read(lambda db: next_batch(db, cursor, now))
        if batch.broken and not self._broken:
            log.error("the sink %s: %s", self.sink.name, batch.broken)
        self._broken = batch.broken or self._broken
        try:
            async with asyncio.timeout(SEND_S):
                await self.sink.send(batch.items)
        except OSError as error:
            self._refused(error)
            return False
        except Exception as error:  # a sink's mistake must not end the daemon
            log.exception("the sink %s", self.sink.name)
            self._refused(error)
            return False
        if self._failures:
            log.info("the sink %s takes records again", self.sink.name)
        self._failures, self._why = 0, ""
        self.cursor = batch.after
        return bool(batch.items)

    def _refused(self, error: Exception) -> None:
        self._failures += 1
        why = getattr(error, "strerror", "") or str(error) or type(error).__name__
        if self._failures == 1:
            self._since = self._clock()
            log.error("the sink %s does not take records and will be tried again: %s", self.sink.name, why)
        self._why = why

    async def _measure(self) -> None:
        """Record that the spool is full, once, and that it is no longer."""
        full = self.waiting >= self._limit()
        if full == self.full:
            return
        self.full = full
        verb = "audit.sink-full" if full else "audit.sink-back"
        why = f"{self.waiting} records wait: {self._why or 'it is slow'}" if full else ""
        with contextlib.suppress(StoreError):  # said in every status all the same
            await self._store.transact(
                lambda db: self._audit.append(
                    db, actor=CORRAL, verb=verb, object=f"sink:{self.sink.name}", request="sinks", outcome="done",
                    reason=why,
                )
            )  # fmt: skip

    @property
    def waiting(self) -> int:
        """Records that it does not have yet."""
        head = self._audit.head
        return max(0, head.seq - self.cursor.seq) if head and self.cursor else 0

    def status(self) -> SinkStatus:
        state = "full" if self.full else "waiting" if self._failures else "ok"
        return SinkStatus(
            name=self.sink.name, state=state, sent=self.cursor.seq if self.cursor else 0, waiting=self.waiting,
            reason=self._why or self._broken, since=self._since if self._failures else 0.0,
        )  # fmt: skip

    def troubles(self) -> list[str]:
        told = []
        if self.full:
            told.append(f"the sink {self.sink.name} of the audit trail is full: {self.waiting} records wait for it"
                        f" ({self._why or 'it is slow'}); nothing is dropped")  # fmt: skip
        elif self._failures:
            told.append(f"the sink {self.sink.name} does not take audit records: {self._why}; {self.waiting} wait")
        if weak := getattr(self.sink, "trouble", ""):
            told.append(f"the sink {self.sink.name}: {weak}")
        if self._broken:
            told.append(f"the sink {self.sink.name} has another audit trail than this one: {self._broken}")
        return told


class Sinks:
    """All sinks of a daemon."""

    def __init__(
        self, store: Store, audit: Audit, paths: Paths, settings: Callable[[], AuditTable], *,
        make: Callable[[SinksTable], list[Sink]] = sinks_of, pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self._store, self._audit, self._paths, self._settings = store, audit, paths, settings
        self._make, self._pause, self._clock = make, pause, clock
        self._changed = asyncio.Event()
        self._feeds: list[Feed] = []
        self._kept: dict[str, Cursor] = {}
        self._wrong = ""
        audit.on_record.append(self._recorded)

    def _recorded(self, record: AuditRecord) -> None:
        for feed in self._feeds:
            feed.news.set()

    def follow(self) -> None:
        """corral.toml was read anew."""
        self._changed.set()

    async def run(self) -> None:
        """Feed them until cancelled."""
        self._kept = await asyncio.to_thread(self._read)
        while True:
            self._changed.clear()
            table = self._settings().sinks
            self._begin(table)
            with contextlib.suppress(StoreError):  # else each feed finds its own beginning
                for feed in self._feeds:
                    await feed.begin()
            await self._keep()  # before the first line: who is killed now begins there again
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(feed.run()) for feed in self._feeds]
                    tasks.append(group.create_task(self._keep_places()))
                    while self._settings().sinks == table:
                        await self._changed.wait()
                        self._changed.clear()
                    for task in tasks:
                        task.cancel()
            finally:
                await asyncio.shield(self._keep())

    def _begin(self, table: SinksTable) -> None:
        try:
            sinks, self._wrong = self._make(table), ""
        except CorralError as error:
            sinks, self._wrong = [], str(error)
            log.error("%s", error)
        full = {feed.sink.name for feed in self._feeds if feed.full}
        self._feeds = [
            Feed(sink, self._store, self._audit, lambda: self._settings().sinks.spool_records,
                 self._kept.get(sink.name), self._pause, self._clock, sink.name in full)
            for sink in sinks
        ]  # fmt: skip

    async def flush(self, seconds: float = 2.0) -> None:
        """Before the daemon ends: what was recorded last, as far as that works within `seconds`."""
        with contextlib.suppress(TimeoutError, CorralError):
            async with asyncio.timeout(seconds):
                for feed in self._feeds:
                    while await feed.step():
                        pass
                    await feed.sink.close()
        await self._keep()

    async def _keep_places(self) -> None:
        while self._feeds:
            await asyncio.sleep(KEEP_S)
            await self._keep()

    async def _keep(self) -> None:
        places = self._kept | {feed.sink.name: feed.cursor for feed in self._feeds if feed.cursor is not None}
        if places == self._kept:
            return
        try:
            await asyncio.to_thread(replace, self._paths.audit_sinks, msgspec.json.encode(places))
        except OSError as error:
            log.error("audit.sinks could not be written, so that records may be sent twice: %s", error)
        else:
            self._kept = places

    def _read(self) -> dict[str, Cursor]:
        try:
            return msgspec.json.decode(self._paths.audit_sinks.read_bytes(), type=dict[str, Cursor])
        except (OSError, msgspec.MsgspecError):
            return {}

    def sent(self) -> int | None:
        """The last record that every sink has; None where there is no sink."""
        return min((feed.cursor.seq if feed.cursor else 0 for feed in self._feeds), default=None)

    def status(self) -> tuple[SinkStatus, ...]:
        return tuple(feed.status() for feed in self._feeds)

    def troubles(self) -> list[str]:
        """What a person must be told for as long as it lasts, as sentences."""
        told = [f"no sink of the audit trail works: {self._wrong}"] if self._wrong else []
        return told + [each for feed in self._feeds for each in feed.troubles()]
