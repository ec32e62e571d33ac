"""Speeds: what the host was measured to do and what was seen of models on it, kept; and what to expect from both."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from core.catalog import files
from core.catalog.seen import Answered, Observation, fold, observe
from core.catalog.service import Catalog
from core.catalog.speed import Seat, bucket, predict, reckon
from core.catalog.work import Work, of_headers, of_shape
from core.errors import CorralError
from core.nouns import Bench, HostBench, Model, Noun, Seen, Speed
from core.store import Store

log = logging.getLogger(__name__)

BENCHES_KEPT = 20
"""Of a model."""
LOOK_S = 10.0
"""Between two looks at the answers that have ended."""
BUILD_S = 30.0
"""How long an engine's version is taken for the same."""
LINES = 2000
"""That wait for their replica to be idle, at most; then they are taken as they are."""
AT_ONCE = 5000
"""Answers of one look."""

_Key = tuple[str, str, int, int, str]
_LINES = (
    "SELECT seq, launch, time, total_s, queue_s, first_token_s, prompt_tokens, cached_tokens, answer_tokens"
    " FROM usage_lines WHERE seq > ? AND seq <= ? AND outcome = 'ok' AND requests = 1 AND estimated = 0"
    " AND first_token_s IS NOT NULL AND answer_tokens IS NOT NULL AND prompt_tokens IS NOT NULL"
    " ORDER BY seq LIMIT ?"
)


class Served(Noun, frozen=True, kw_only=True):
    """What a launch serves, and whether it answers something now."""

    model: str
    engine: str
    threads: int
    parallel: int
    cache_type: str
    busy: bool


class Speeds:
    """Of one node. `version` gives an engine's build, `served` what a launch serves (None: nobody knows any more)."""

    def __init__(
        self, store: Store, catalog: Catalog, node: str, *, version: Callable[[str], str],
        served: Callable[[str], Served | None],
    ) -> None:  # fmt: skip
        self._store, self._catalog, self.node = store, catalog, node
        self._version, self._served = version, served
        self.host: HostBench | None = None
        self._seen: dict[_Key, Seen] = {}
        self._works: dict[str, Work] = {}
        self._builds: dict[str, tuple[float, str]] = {}
        self._mark = 0
        self._looking = asyncio.Lock()
        self._pending: dict[str, list[Answered]] = {}

    async def start(self) -> None:
        """Read what is kept."""

        def read(db: sqlite3.Connection) -> tuple[str | None, list[str], int]:
            host = db.execute("SELECT data FROM host_benches WHERE node = ?", (self.node,)).fetchone()
            seen = db.execute("SELECT data FROM speeds_seen WHERE node = ?", (self.node,)).fetchall()
            mark = db.execute("SELECT coalesce(max(seq), 0) FROM usage_lines").fetchone()
            return host and host[0], [row[0] for row in seen], mark[0]

        host, seen, self._mark = await self._store.read(read)
        try:
            self.host = msgspec.json.decode(host, type=HostBench) if host else None
        except msgspec.MsgspecError as error:  # of a program that measured something else
            log.warning("what was measured of this host is not understood, `corral nodes bench` measures it: %s", error)
            return
        for each in (msgspec.json.decode(text, type=Seen) for text in seen):
            self._seen[_key(each)] = each

    # ---------------------------------------------------------------------------------------- to expect

    async def work(self, model: Model) -> Work:
        """What a token costs a stored model, by its own tensors; by its shape if they cannot be read."""
        if model.sha256 not in self._works:
            try:
                self._works[model.sha256] = await asyncio.to_thread(self._read, model)
            except (CorralError, OSError) as error:
                log.warning("%s: its tensors cannot be read: %s", model.name, error)
                return of_shape(model.shape)
        return self._works[model.sha256]

    def _read(self, model: Model) -> Work:
        first = Path(self._catalog.path(model))
        paths = [first.with_name(part.name) for part in model.files] if len(model.files) > 1 else [first]
        headers = []
        for path in paths:
            fd = files.open_regular(path)
            try:
                headers.append(files.header_of(fd, path.name))
            finally:
                os.close(fd)
        return of_headers(headers, model.shape)

    async def expect(self, model: Model, engine: str, seat: Seat, *, users: int, ctx: int, prompt: int) -> Speed:
        """What a stored model would do."""
        return self.reckon(
            await self.work(model), seat, users=users, ctx=ctx, prompt=prompt, seen=self.seen(model.sha256, engine)
        )  # fmt: skip

    def reckon(self, work: Work, seat: Seat, *, users: int, ctx: int, prompt: int, seen: Sequence[Seen] = ()) -> Speed:
        """The same of any work."""
        return predict(work, self.host, seat, users=users, ctx=ctx, prompt=prompt, seen=seen)

    def _build(self, engine: str) -> str:
        """An engine's version; looked up each half minute at most, which costs a millisecond."""
        now = time.monotonic()
        if engine not in self._builds or now - self._builds[engine][0] > BUILD_S:
            self._builds[engine] = now, self._version(engine)
        return self._builds[engine][1]

    def seen(self, sha256: str, engine: str) -> list[Seen]:
        """What was seen of a model with this build of an engine."""
        version = self._build(engine)
        return [
            each for each in self._seen.values()
            if each.sha256 == sha256 and each.engine == engine and each.version == version
        ]  # fmt: skip

    def all_seen(self) -> list[Seen]:
        """Everything that corrects a reckoning."""
        return sorted(self._seen.values(), key=lambda each: (each.sha256, each.engine, each.threads, each.users))

    # ---------------------------------------------------------------------------------------- kept

    def put_host(self, db: sqlite3.Connection, host: HostBench) -> None:
        """In a transaction: what was seen so far is compared with another reckoning, and learned anew."""
        db.execute(
            "INSERT INTO host_benches (node, at, data) VALUES (?, ?, ?)"
            " ON CONFLICT (node) DO UPDATE SET at = excluded.at, data = excluded.data",
            (host.node, host.at, msgspec.json.encode(host).decode()),
        )
        db.execute("DELETE FROM speeds_seen WHERE node = ?", (host.node,))
        self._store.on_commit(lambda: self._take_host(host))

    def _take_host(self, host: HostBench) -> None:
        self.host, self._seen = host, {}

    async def keep_bench(
        self, model: Model, bench: Bench, learned: Iterable[tuple[Seat, Sequence[Observation]]]
    ) -> None:  # fmt: skip
        """Keep a curve and what its points teach, all of it or nothing."""
        new: dict[_Key, Seen] = {}
        for seat, found in learned:
            new |= await self._folded(model, bench.engine, seat, found, new)

        def put(db: sqlite3.Connection) -> None:
            _put_bench(db, bench)
            self._put_seen(db, new)

        await self._store.transact(put)
        self._seen |= new

    async def benches(self, sha256: str) -> list[Bench]:
        """Measured curves of a model, newest first."""
        rows = await self._store.read(
            lambda db: db.execute("SELECT data FROM benches WHERE sha256 = ? ORDER BY at DESC", (sha256,)).fetchall()
        )
        return [msgspec.json.decode(row[0], type=Bench) for row in rows]

    # ---------------------------------------------------------------------------------------- learned

    async def run(self) -> None:
        """Learn from what is answered, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except CorralError as error:
                log.warning("speeds were not learned: %s", error)

    async def look(self) -> None:
        """Take in the answers that have ended since the last look. Those of a replica that still answers others wait:
        how many were answered at once is known when all of them have ended."""
        async with self._looking:
            for launch, answered in await self._store.read(self._new):
                self._pending.setdefault(launch, []).append(answered)
            for launch in list(self._pending):
                served = self._served(launch)
                if served is not None and served.busy and len(self._pending[launch]) < LINES:
                    continue
                answers = self._pending.pop(launch)
                if served is not None:
                    await self._learn_of(served, await asyncio.to_thread(observe, answers))

    def _new(self, db: sqlite3.Connection) -> list[tuple[str, Answered]]:
        """Answers since the last look, with their launches. The mark goes on over what tells nothing, too: else that
        would be read again at each look."""
        last = int(db.execute("SELECT coalesce(max(seq), 0) FROM usage_lines").fetchone()[0])
        rows = db.execute(_LINES, (self._mark, last, AT_ONCE)).fetchall()
        self._mark = rows[-1][0] if len(rows) == AT_ONCE else last
        return [
            (
                launch,
                Answered(
                    ended=ended, total_s=total, queue_s=queue, first_s=first, prompt=prompt, cached=cached or 0,
                    answer=answer,
                ),
            )
            for _, launch, ended, total, queue, first, prompt, cached, answer in rows
        ]  # fmt: skip

    async def _learn_of(self, served: Served, found: Iterable[Observation]) -> None:
        try:
            model = await self._catalog.get(served.model)
        except CorralError:
            return  # it was removed meanwhile
        seat = Seat(threads=served.threads, parallel=served.parallel, cache_type=served.cache_type)
        await self.learn(model, served.engine, seat, found)

    async def learn(self, model: Model, engine: str, seat: Seat, found: Iterable[Observation]) -> None:
        """Fold observations of a model into what is kept."""
        new = await self._folded(model, engine, seat, found, {})
        if not new:
            return
        await self._store.transact(lambda db: self._put_seen(db, new))
        self._seen |= new

    async def _folded(
        self, model: Model, engine: str, seat: Seat, found: Iterable[Observation], before: Mapping[_Key, Seen]
    ) -> dict[_Key, Seen]:  # fmt: skip
        """What is to be kept for them, upon what is kept and came `before` in the same breath."""
        work, new = await self.work(model), dict(before)
        version = self._build(engine)
        for each in found:
            expected = 0.0
            if self.host is not None:
                raw = reckon(work, self.host, seat, users=each.users, ctx=each.ctx, prompt=each.prompt)
                prefill = each.prompt / (raw.first_s + raw.prompt_s + raw.step_s) if each.what == "prefill" else 0.0
                expected = prefill or 1 / raw.step_s
            key = (model.sha256, engine, seat.threads, bucket(each.users), each.what)
            old = new.get(key, self._seen.get(key))
            folded = fold(
                old, each, expected, sha256=model.sha256, engine=engine, version=version, threads=seat.threads
            )  # fmt: skip
            if folded is None:
                log.info("%s: %.1f tokens/s of %s is no measurement beside %.1f", model.name, each.rate, each.what,
                         expected)  # fmt: skip
            else:
                new[key] = folded
        return new

    def _put_seen(self, db: sqlite3.Connection, new: Mapping[_Key, Seen]) -> None:
        db.executemany(
            "INSERT INTO speeds_seen (node, sha256, engine, threads, users, what, data)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT (node, sha256, engine, threads, users, what) DO UPDATE SET data = excluded.data",
            [(self.node, *key, msgspec.json.encode(each).decode()) for key, each in new.items()],
        )


def _put_bench(db: sqlite3.Connection, bench: Bench) -> None:
    """With the last ones of the model."""
    db.execute(
        "INSERT INTO benches (id, model, sha256, node, at, data) VALUES (?, ?, ?, ?, ?, ?)",
        (bench.id, bench.model, bench.sha256, bench.node, bench.at, msgspec.json.encode(bench).decode()),
    )
    db.execute(
        "DELETE FROM benches WHERE sha256 = ? AND id NOT IN"
        " (SELECT id FROM benches WHERE sha256 = ? ORDER BY at DESC LIMIT ?)",
        (bench.sha256, bench.sha256, BENCHES_KEPT),
    )


def _key(seen: Seen) -> _Key:
    return seen.sha256, seen.engine, seen.threads, seen.users, seen.what
