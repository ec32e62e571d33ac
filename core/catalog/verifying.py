"""All stored bytes read again, at the lowest priority: what has rotted is set aside and whom it concerns is told.

One run at a time, a task of the daemon; the next daemon goes on with the objects that were not done. What is read is
taken out of the page cache again, so that it is the disk that is read and nobody's models are pushed out.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from core.access import Gate
from core.catalog import files, references, tables
from core.catalog.objects import Objects
from core.catalog.tiers import Tiers
from core.catalog.uses import Uses
from core.errors import Conflict, CorralError, ErrorBody, Failed, NotAllowed, NotFound, StoreError
from core.events import Bus
from core.nouns import CORRAL, Actor, Model, Rotten, Unread, Verified
from core.store import Store

log = logging.getLogger(__name__)

TELL_S = 1.0
"""Progress is told so often."""
LOOKED_BACK = 100
"""Runs among which one is sought that the asker may hear of."""
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
_IDLE = 3 << 13
"""The scheduling class of a disk that is served when nobody else wants anything."""


class _Cancelled(Exception):
    """Raised in the reading thread."""


class Verifying:
    """Only the catalog makes one."""

    def __init__(
        self, store: Store, gate: Gate, objects: Objects, tiers: Tiers, uses: Uses, bus: Bus, *,
        clock: Callable[[], float], tell: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._objects, self._tiers, self._uses = store, gate, objects, tiers, uses
        self._bus, self._clock, self._tell = bus, clock, tell
        self._run = 0
        """The id of the run in progress; 0: none."""
        self.about: tuple[str, ...] = ()
        """The models of the run in progress, or of the last one of this daemon."""
        self._part = ("", 0)
        """The object that is being read, and how many bytes of it are."""
        self._told_at = 0.0
        self._failed: tuple[int, float, ErrorBody] | None = None
        """The last run of this daemon that failed: its id, when and why."""
        self._task: asyncio.Task[None] | None = None
        self._stop = threading.Event()
        self._loop = asyncio.get_running_loop()

    # ---------------------------------------------------------------------------------------- from outside

    async def start(self, actor: Actor, request: str, names: Sequence[str]) -> Verified:
        """Begin to verify these models, or all on which the actor may. Raises `Conflict` if a run is on its way."""
        self._gate.require_somewhere(actor, "models.verify")
        for name in names:
            self._gate.require(actor, "models.verify", f"model:{references.base(name)}")
            meant = references.split(name)
            await self._store.read(lambda db, it=meant: tables.find(db, it))  # type: ignore[misc]
        if self._task is not None and not self._task.done():
            raise Conflict("a verification is on its way", todo="see `corral models verify --status`")
        models = await self._store.read(tables.versions)
        may = [m for m in models if self._gate.may(actor, "models.verify", f"model:{m.name}")]
        chosen = sorted({m.name for m in may if not names or m.name in {references.base(name) for name in names}})

        def begin(db: sqlite3.Connection) -> tuple[int, object, object]:
            row = db.execute(
                "INSERT INTO verifications (started_at, started_by, models, state) VALUES (?, ?, ?, 'hashing')"
                " RETURNING id",
                (self._clock(), actor.name, msgspec.json.encode(chosen).decode()),
            ).fetchone()
            return row[0], None, {"models": len(chosen)}

        on = f"model:{references.base(names[0])}" if len(names) == 1 else "model:*"
        self._run = await self._gate.act(actor, "models.verify", on, request, begin, on="*")
        self._go(chosen)
        return await self.last(actor)

    async def last(self, actor: Actor) -> Verified:
        """The run in progress or the last one, as far as it is about models that `actor` may see: counts, versions and
        deployments of the rest are left out. Raises `NotFound`."""
        sql = "SELECT id, models FROM verifications ORDER BY id DESC LIMIT ?"
        for run, told in await self._store.read(lambda db: db.execute(sql, (LOOKED_BACK,)).fetchall()):
            names = set(msgspec.json.decode(told))
            seen = {name for name in names if self.sees(actor, name)}
            if seen or not names:
                return await self._read(run, seen, actor)
        raise NotFound("nothing was verified yet", todo="corral models verify")

    def concerns(self, actor: Actor) -> bool:
        """Whether the run in progress, or the last one of this daemon, is about a model that `actor` may see."""
        return any(self.sees(actor, name) for name in self.about)

    def sees(self, actor: Actor, name: str) -> bool:
        """Whether `actor` may hear what verifying a model came to."""
        return any(self._gate.may(actor, each, f"model:{name}") for each in ("models.read", "models.verify"))

    async def cancel(self, actor: Actor, request: str) -> Verified:
        """End the run in progress; what it has verified stays verified. Raises `NotFound` if there is none, and
        `NotAllowed` where it is about models too on which `actor` may not begin one."""
        self._gate.require_somewhere(actor, "models.verify")
        if self._task is None or self._task.done():
            raise NotFound("no verification is on its way")
        if not all(self._gate.may(actor, "models.verify", f"model:{name}") for name in self.about):
            raise NotAllowed(
                "this verification is not yours to end", f"it is about models that {actor.name} may not models.verify",
                "ask an admin, or wait: models are served meanwhile",
            )  # fmt: skip
        self._stop.set()
        await asyncio.wait({self._task}, timeout=30)
        await self._gate.record(actor, "models.verify", "model:*", request, "interrupted", reason="cancelled")
        return await self.last(actor)

    async def resume(self) -> None:
        """Go on with what an earlier daemon began."""
        row = await self._store.read(
            lambda db: db.execute(
                "SELECT id, models FROM verifications WHERE state = 'hashing' ORDER BY id DESC LIMIT 1"
            ).fetchone()
        )
        if row is not None:
            self._run = row[0]
            self._go(msgspec.json.decode(row[1]))

    async def close(self) -> None:
        """The run goes on with the next daemon."""
        if self._task is not None:
            self._task.cancel()
            self._stop.set()
            await asyncio.gather(self._task, return_exceptions=True)

    # ---------------------------------------------------------------------------------------- the run

    def _go(self, names: Sequence[str]) -> None:
        self._stop = threading.Event()
        self.about, self._part = tuple(names), ("", 0)
        self._task = asyncio.create_task(self._work())
        self._nudge(now=True)

    def _nudge(self, *, now: bool = False) -> None:
        """Tell that it went on, seldom enough, or `now`. What came of it is for each to ask: not all may know all."""
        if now or self._clock() - self._told_at >= TELL_S:
            self._told_at = self._clock()
            self._bus.publish("verify", "model:*")

    async def _read(self, run: int, names: set[str], actor: Actor) -> Verified:
        """A run as far as it is about these models."""
        sql = "SELECT started_at, started_by, ended_at, state, found FROM verifications WHERE id = ?"
        row = await self._store.read(lambda db: db.execute(sql, (run,)).fetchone())
        todo = await self._store.read(lambda db: _objects(db, names))
        done = [each for each in todo if each[2] >= row[0]]
        reading, part = self._part
        under_way = part if run == self._run and any(each[0] == reading and each[2] < row[0] for each in todo) else 0
        found = msgspec.json.decode(row[4], type=list[tuple[str, Rotten]])
        found = await self._store.read(lambda db: [(how, _since(db, each)) for how, each in found])
        passed = {each[0] for each in todo if each[2] < row[0]} - {each.sha256 for _, each in found}

        def of(what: str) -> tuple[Rotten, ...]:
            told = (self._seen(each, actor) for how, each in found if how == what)
            return tuple(each for each in told if each is not None)

        told = Verified(
            state=row[3], objects_done=len(done), objects_total=len(todo),
            bytes_done=sum(each[1] for each in done) + under_way, bytes_total=sum(each[1] for each in todo),
            started_at=row[0], started_by=row[1], ended_at=row[2], rotten=of("rotten"), missing=of("missing"),
            unread=await self._store.read(lambda db: _unread(db, names, passed)),
        )  # fmt: skip
        if self._failed is None or self._failed[0] != run:
            return told
        return msgspec.structs.replace(told, state="failed", ended_at=self._failed[1], error=self._failed[2])

    def _seen(self, found: Rotten, actor: Actor) -> Rotten | None:
        """What of this `actor` may know; None: nothing."""
        versions = tuple(each for each in found.versions if self.sees(actor, references.base(each)))
        may = self._gate.may
        users = tuple(each for each in found.deployments if may(actor, "deployments.read", f"deployment:{each}"))
        return msgspec.structs.replace(found, versions=versions, deployments=users) if versions else None

    async def _work(self) -> None:
        state, why = "done", None
        with ThreadPoolExecutor(1, "verify", initializer=_last_in_line) as pool:
            try:
                await self._each(pool)
            except _Cancelled:
                state = "cancelled"
            except asyncio.CancelledError:
                raise
            except CorralError as error:
                state, why = "failed", error
            except Exception:
                log.exception("the verification ended: an error of ours")
                state, why = "failed", Failed("the verification ended", "this is a bug", "see the daemon's log")
        await self._end(state, why)

    async def _each(self, pool: ThreadPoolExecutor) -> None:
        """One object after the other, until none is left that was not read in this run."""
        loop = asyncio.get_running_loop()
        started_at, models = await self._store.read(
            lambda db: db.execute("SELECT started_at, models FROM verifications WHERE id = ?", (self._run,)).fetchone()
        )
        names = set(msgspec.json.decode(models))
        while todo := [
            each
            for each in await self._store.read(lambda db: _objects(db, names))
            if each[2] < started_at and each[3] == "stored"
        ]:
            sha256 = todo[0][0]
            tier = await self._store.read(lambda db, it=sha256: tables.tier_of(db, it))  # type: ignore[misc]
            how = await loop.run_in_executor(pool, self._look, *await self._parts(sha256))
            if how and await self._elsewhere(sha256, tier):
                continue  # it was moved, or its tier is not there any more: that is no fault of its bytes
            await self._told(sha256, how, tier)

    async def _end(self, state: str, why: CorralError | None) -> None:
        """Record it. What cannot be recorded now, the next daemon goes on with."""
        sql, values = "UPDATE verifications SET state = ?, ended_at = ? WHERE id = ?", (state, self._clock(), self._run)
        try:
            await self._store.transact(lambda db: db.execute(sql, values))
        except StoreError as error:
            log.error("the end of a verification is not recorded: %s", error)
            why = why or error
        if why is not None:
            self._failed = (self._run, self._clock(), why.body())
        self._nudge(now=True)

    async def _parts(self, sha256: str) -> tuple[str, list[tuple[str, str]]]:
        """An object's hash, and its files with what each hash should be."""

        def look(db: sqlite3.Connection) -> tuple[str, list[Model]]:
            made = tables.made_of(db, sha256)
            tier = tables.tier_of(db, sha256)
            return tier, [m for m in tables.versions(db, made[0][0]) if m.version == made[0][1]] if made else []

        tier, models = await self._store.read(look)
        place = self._objects.place(sha256, tier)
        for model in models:
            if tables.object_of(model.files) == sha256 and len(model.files) > 1:
                return sha256, [(str(place / part.name), part.sha256) for part in model.files]
        return sha256, [(str(place), sha256)]

    async def _elsewhere(self, sha256: str, tier: str) -> bool:
        """Whether an object does not lie in this tier now, or that is not within reach."""
        away = await self._tiers.here(tier)
        return bool(away) or tier != await self._store.read(lambda db: tables.tier_of(db, sha256))

    def _look(self, sha256: str, parts: Sequence[tuple[str, str]]) -> str:
        """In a thread: "", `rotten` or `missing`."""
        done, told = 0, self._clock()
        for path, expected in parts:
            digest = hashlib.sha256()
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                return "missing"
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)  # what is mapped stays
                while data := os.read(fd, files.CHUNK):
                    if self._stop.is_set():
                        raise _Cancelled
                    digest.update(data)
                    os.posix_fadvise(fd, done, len(data), os.POSIX_FADV_DONTNEED)
                    done += len(data)
                    self._part = (sha256, done)
                    if self._clock() - told >= TELL_S:
                        told = self._clock()
                        self._loop.call_soon_threadsafe(self._nudge)
            except OSError:
                return "rotten"  # the disk cannot read it any more
            finally:
                os.close(fd)
            if digest.hexdigest() != expected:
                return "rotten"
        return ""

    async def _told(self, sha256: str, how: str, tier: str) -> None:
        """Record what came of one object in a tier; if it is not what it was, say whom that concerns and set it aside.
        In this order: what is recorded and still in its place, the next start sets aside."""
        now = self._clock()
        if not how:
            await self._store.transact(
                lambda db: db.execute("UPDATE objects SET verified_at = ? WHERE sha256 = ?", (now, sha256))
            )
            self._nudge()
            return
        async with self._objects.lock:
            concerned = await self._store.transact(lambda db: self._concerns(db, sha256, how, tier, now))
            if concerned is None:
                return
            if how == "rotten":
                try:
                    await asyncio.to_thread(self._objects.set_aside, sha256, tier)
                except OSError as error:  # nobody is served it any more; its tier sets it aside when it takes changes
                    log.warning("%s stays in its place on %s for now: %s", sha256, tier, error.strerror or error)
        for name in sorted({each.partition("@")[0] for each in concerned.versions}):
            await self._gate.record(
                CORRAL, "models.quarantine", f"model:{name}", f"auto-verify-{self._run}", "done",
                after=msgspec.to_builtins(concerned), reason=_WHY[how],
            )  # fmt: skip
            await self._tell(name)
        log.error("object %s: %s; %s", sha256[:16], _WHY[how], ", ".join(concerned.versions))
        self._nudge(now=True)

    def _concerns(self, db: sqlite3.Connection, sha256: str, how: str, tier: str, now: float) -> Rotten | None:
        """Whom it concerns, which is recorded; None where the object was moved or removed as it was read."""
        state = {"rotten": "quarantined", "missing": "missing"}[how]
        there = db.execute(
            "UPDATE objects SET state = ?, verified_at = ? WHERE sha256 = ? AND tier = ? RETURNING bytes",
            (state, now, sha256, tier),
        ).fetchone()
        if there is None:
            return None
        size = there[0]
        made = set(tables.made_of(db, sha256))
        models = [m for m in tables.versions(db) if (m.name, m.version) in made]
        users = sorted({user for model in models for user in self._uses.names(db, model)})
        for model in models:
            tables.note(db, model.name, now, "corral", state, model.version, ", ".join(users))
        found = Rotten(
            sha256=sha256, bytes=size, versions=tuple(model.reference for model in models), deployments=tuple(users)
        )
        row = db.execute("SELECT found FROM verifications WHERE id = ?", (self._run,)).fetchone()
        before = msgspec.json.decode(row[0], type=list[tuple[str, Rotten]])
        db.execute(
            "UPDATE verifications SET found = ? WHERE id = ?",
            (msgspec.json.encode([*before, (how, found)]).decode(), self._run),
        )
        return found


_WHY = {"rotten": "its bytes are not what they were: set aside", "missing": "its file is gone"}


def _objects(db: sqlite3.Connection, names: set[str]) -> list[tuple[str, int, float, str]]:
    """Of these models: hash, bytes, when last verified, state."""
    sql = (
        "SELECT DISTINCT o.sha256, o.bytes, coalesce(o.verified_at, 0),"
        " CASE WHEN o.state = 'stored' AND t.away != '' THEN 'away' ELSE o.state END, v.model FROM objects o"
        " JOIN version_objects v ON v.sha256 = o.sha256 JOIN tiers t ON t.name = o.tier ORDER BY o.sha256"
    )
    found = {row[0]: (row[0], row[1], row[2], row[3]) for row in db.execute(sql) if row[4] in names}
    return list(found.values())


def _since(db: sqlite3.Connection, found: Rotten) -> Rotten:
    """What has become of it since: it has its bytes again (also where their tier is away), or some of the versions that
    were made of it, or all, are removed."""
    states = tables.states(db, [found.sha256])
    healed = any(state in ("stored", "away") for state, _ in states.values())
    there = {f"{name}@{version}" for name, version in tables.made_of(db, found.sha256)}
    left = tuple(each for each in found.versions if each in there)
    return msgspec.structs.replace(
        found, healed=healed, removed=not there and not healed, versions=left or found.versions
    )  # fmt: skip


def _unread(db: sqlite3.Connection, names: set[str], objects: set[str]) -> tuple[Unread, ...]:
    """The versions of these models that are made of one of these objects and are not there to be read."""
    return tuple(
        Unread(version=model.reference, state=model.state, tier=model.tier)
        for model in (tables.versions(db) if objects else ())
        if model.name in names and model.state != "stored" and objects & tables.objects_of(model).keys()
    )


def _last_in_line() -> None:
    """Have this thread wait for everybody else, at the processor and at the disk."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    number = _IOPRIO_SET.get(platform.machine())
    if number:
        ctypes.CDLL(None, use_errno=True).syscall(number, 1, 0, _IDLE)
