"""Moves between tiers: jobs that copy a version, switch over in one transaction, and only then remove the old copy.

A kill at any point leaves one good copy. Before the switch the row says the old tier, and what lies in the new one is a
rest that the next start removes; after it the row says the new tier, whose copy was read back, and the old one is the
rest. A running replica keeps the old file open until it restarts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from core import fulldisk
from core.access import Effect, Gate
from core.catalog import references
from core.catalog import tables as versions
from core.catalog.objects import Objects
from core.catalog.rate import Rate
from core.catalog.tiers import tables
from core.catalog.tiers.copying import Cancelled, Copying
from core.catalog.tiers.ledger import Away, Reservation
from core.catalog.tiers.pieces import Piece, along, needs, stay, to_move
from core.catalog.tiers.service import Tiers
from core.catalog.uses import Uses
from core.errors import Conflict, CorralError, Failed, NotFound
from core.events import Bus
from core.nouns import CORRAL, Actor, Model, MoveJob
from core.store import Store

log = logging.getLogger(__name__)
T = TypeVar("T")

JOBS_KEPT = 50
ENDED = ("done", "failed", "cancelled")
PROGRESS_S = 0.2
FREE_S = 0.2
"""Between two looks whether anybody is about to open the old copy."""
AGAIN_S = 30.0
"""After a move that a deployment waits for has failed."""


class Moves:
    """Jobs by id. `uses` tells who needs a version, `loading` the versions (`chat@3`) that engines are about to
    open. `close` ends those that run; what they left is removed by the next start."""

    def __init__(
        self, store: Store, gate: Gate, objects: Objects, tiers: Tiers, bus: Bus, *, clock: Callable[[], float],
        uses: Uses, tell: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._objects, self._tiers, self._bus = store, gate, objects, tiers, bus
        self._clock, self._uses, self._tell = clock, uses, tell
        self.loading: Callable[[], set[str]] = set
        self._jobs: dict[str, MoveJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stop: dict[str, threading.Event] = {}
        self._busy: dict[str, str] = {}
        """By object, the job that moves it."""
        self._failed: dict[tuple[str, str], tuple[float, str]] = {}
        """By version and tier, when a move for a deployment failed last, and why."""
        self._closing = False
        self._loop = asyncio.get_running_loop()

    # ---------------------------------------------------------------------------------------- begin

    async def start(
        self, actor: Actor, request: str, wanted: str, to: str, *, why: str = "", spill: bool = True
    ) -> MoveJob:
        """Begin to move the version that is meant to a tier, or, with `spill`, where that one spills to. Raises
        `NotFound`, `NotAllowed`, `NoRoom`, `Away`, and `Conflict` where nothing is to move or somebody needs it where
        it is; each is recorded."""
        subject = f"model:{references.base(wanted)}"
        id = secrets.token_hex(6)
        try:
            if self._closing:
                raise Conflict("nothing is moved now", "the daemon ends", "say it again to the next one")
            model, pieces, space, job = await self._asked(id, actor, wanted, to, spill=spill)
        except CorralError as error:
            await self._gate.refuse(actor, "models.move", subject, request, str(error))
            raise
        job = msgspec.structs.replace(job, state="waiting", why=why)
        self._keep(job)
        self._busy |= dict.fromkeys((piece.sha256 for piece in pieces), id)
        self._tasks[id] = asyncio.create_task(self._carry_out(job, actor, request, model, pieces, space))
        return job

    async def plan(self, actor: Actor, request: str, wanted: str, to: str) -> MoveJob:
        """What a move would be: where to, how much, and which versions go along. Raises what `start` does, and it is
        recorded: who would be refused has asked."""
        try:
            _, _, space, job = await self._asked(f"look-{secrets.token_hex(4)}", actor, wanted, to, spill=True)
        except CorralError as error:
            await self._gate.refuse(actor, "models.move", f"model:{references.base(wanted)}", request, str(error))
            raise
        await self._tiers.ledger.release(space)
        return job

    async def _asked(
        self, id: str, actor: Actor, wanted: str, to: str, *, spill: bool
    ) -> tuple[Model, list[Piece], Reservation, MoveJob]:
        """The version that is meant, what of it is to move, the room for that, and the job that it would be."""
        self._gate.require(actor, "models.move", f"model:{references.base(wanted)}")
        meant = references.split(wanted)
        model = await self._store.read(lambda db: versions.find(db, meant))
        self._gate.require(actor, "tiers.read", f"tier:{to}")
        pieces = await self._store.read(lambda db: to_move(db, self._gate, self._uses, actor, model, to))
        if not pieces:
            raise Conflict(f"{model.reference} is on {to} already", "nothing is moved")
        reserve = self._tiers.ledger.find if spill else self._tiers.ledger.reserve
        space = await reserve(to, sum(piece.bytes for piece in pieces), id, model.reference)
        try:
            pieces = [piece for piece in pieces if piece.tier != space.tier]
            if not pieces:
                refused = space.passed[0]
                refused.why += f"; {space.tier}, to which it spills, is where {model.reference} lies"
                raise refused
            if busy := next((self._busy[piece.sha256] for piece in pieces if piece.sha256 in self._busy), ""):
                on_its_way = self._jobs[busy]
                raise Conflict(f"{on_its_way.model} is on its way to {on_its_way.to_tier}", todo="wait for it")
            touches = await self._store.read(lambda db: along(db, model, pieces))
            needed = await self._store.read(lambda db: needs(db, self._uses, pieces, space.tier))
            stay(needed)  # where it spills to, nobody may need it either
        except BaseException:
            await self._tiers.ledger.release(space)
            raise
        job = MoveJob(
            id=id, model=model.reference, from_tier=pieces[0].tier, to_tier=space.tier, asked=to, state="planned",
            touches=touches, spilled=space.spilled, beside=tuple(each.beside for each in pieces if each.beside),
            back=tuple(dict.fromkeys(each.deployment for each in needed)),
            bytes_total=sum(piece.bytes for piece in pieces), by=actor.name, started_at=self._clock(),
        )  # fmt: skip
        return model, pieces, space, job

    async def ensure(self, reference: str, tier: str, deployment: str) -> str:
        """Have a version in the tier that a deployment needs; why it has to wait, "" if it is there. Raises
        `NotFound`."""
        model = await self._store.read(lambda db: versions.find(db, references.split(reference)))
        if why := await self._tiers.here(tier):
            return f"waits for the tier {tier}: {why}"
        lying = await self._store.read(lambda db: versions.lying(db, versions.objects_of(model)))
        if lying and set(lying.values()) == {tier}:
            return ""
        for job in self._jobs.values():
            if job.state not in ENDED and job.model == reference:
                return f"waits until {reference} is on {tier}: {said(job)}"
        at, why = self._failed.get((reference, tier), (0.0, ""))
        if self._loop.time() - at < AGAIN_S and why:
            return f"waits for the tier {tier}: {why}"
        try:
            request = f"auto-{secrets.token_hex(5)}"
            cause = f"the deployment {deployment} needs it there"
            job = await self.start(CORRAL, request, reference, tier, why=cause, spill=False)
        except CorralError as error:
            self._failed[reference, tier] = (self._loop.time(), str(error))
            return f"waits for the tier {tier}: {error}"
        return f"waits until {reference} is on {tier}: {said(job)}"

    async def check(self, actor: Actor, model: Model, tier: str, deployment: str) -> None:
        """Whether a deployment may need a version in a tier. Raises `NotFound`, `Away`, `NotAllowed`, `NoRoom`."""
        self._gate.require(actor, "tiers.read", f"tier:{tier}")
        if why := await self._tiers.here(tier):
            raise Away(f"the tier {tier} is not there", why, "mount it, or deploy without --tier")
        pieces = await self._store.read(lambda db: to_move(db, self._gate, self._uses, actor, model, tier, deployment))
        if pieces:
            self._gate.require(actor, "models.move", f"model:{model.name}")
            id = f"look-{secrets.token_hex(4)}"
            size = sum(piece.bytes for piece in pieces)
            await self._tiers.ledger.release(await self._tiers.ledger.reserve(tier, size, id, model.reference))

    # ---------------------------------------------------------------------------------------- jobs

    def ls(self) -> list[MoveJob]:
        """Those that this daemon knows of, oldest first."""
        return list(self._jobs.values())

    def job(self, id: str) -> MoveJob:
        """Raises `NotFound`."""
        if id not in self._jobs:
            raise NotFound(f"no move {id!r}")
        return self._jobs[id]

    async def cancel(self, actor: Actor, id: str) -> MoveJob:
        """End a move; the version stays where it was. One that has switched over goes on to its end."""
        self._gate.require(actor, "models.move", f"model:{self.job(id).name}")
        self._stop[id].set()
        if id in self._tasks:
            await asyncio.wait({self._tasks[id]}, timeout=30)
        return self.job(id)

    async def ended(self, id: str) -> MoveJob:
        """The job when it has ended."""
        if id in self._tasks:
            await asyncio.wait({self._tasks[id]})
        return self.job(id)

    async def close(self) -> None:
        self._closing = True
        for id in list(self._tasks):
            self._stop[id].set()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _keep(self, job: MoveJob) -> None:
        for old in [id for id in self._jobs if id not in self._tasks][: max(0, len(self._jobs) - JOBS_KEPT + 1)]:
            del self._jobs[old]
            del self._stop[old]
        self._jobs[job.id], self._stop[job.id] = job, threading.Event()
        self._publish(job)

    def _publish(self, job: MoveJob) -> None:
        self._bus.publish("move", f"move:{job.id}", job)

    def _set(self, id: str, **fields: object) -> None:
        job = self._jobs[id]
        if job.state not in ENDED:
            self._jobs[id] = msgspec.structs.replace(job, **fields)
            self._publish(self._jobs[id])

    # ---------------------------------------------------------------------------------------- carry out

    async def _carry_out(
        self, job: MoveJob, actor: Actor, request: str, model: Model, pieces: list[Piece], space: Reservation
    ) -> None:
        effect: Effect | None = None
        ended: dict[str, object] = {}
        work = self._objects.incoming_of(space.tier) / job.id
        subject = f"model:{model.name}"
        try:
            effect = await self._gate.intent(
                actor, "models.move", subject, request, before={"version": model.version, "tier": job.from_tier},
                after={"version": model.version, "tier": space.tier, "bytes": job.bytes_total}, reason=job.why,
            )  # fmt: skip
            copying = Copying(self._progress(job.id, space), self._stop[job.id])
            for piece in pieces:
                source = self._objects.place(piece.sha256, piece.tier)
                await whole(asyncio.to_thread(copying.copy, source, piece.parts, work / piece.sha256))
            moved = await whole(self._switch(effect, model, pieces, space))
            await self._free(job, model, moved, space.tier)
            ended = {"state": "done", "bytes_done": job.bytes_total}
            await self._gate.outcome(effect, "done", after={"tier": space.tier, "version": model.version})
        except Cancelled:
            ended = {"state": "cancelled"}
            if effect is not None:
                await self._gate.outcome(effect, "interrupted", reason="cancelled")
        except Exception as error:
            # Anything: a move that broke must end, and its intent must have an outcome.
            told = await self._because(error, job)
            ended = {"state": "failed", "error": told.body()}
            if why := job.why:
                self._failed[job.model, job.asked] = (self._loop.time(), str(told))
                log.error("%s is not moved to %s, though %s: %s", job.model, job.asked, why, told)
            if effect is not None:
                await self._gate.outcome(effect, "failed", reason=str(told))
        finally:
            try:
                await whole(self._clear(job, work, pieces, space))
            finally:  # not before: whoever hears that it has ended may move the same version at once
                self._set(job.id, **{"rate": 0.0, **ended})
                self._tasks.pop(job.id, None)

    async def _because(self, error: Exception, job: MoveJob) -> CorralError:
        """Why a move broke: a file that cannot be read or written may be a tier that is not there any more."""
        for tier in (job.to_tier, job.from_tier) if isinstance(error, OSError | Failed) else ():
            with contextlib.suppress(CorralError, OSError):
                if why := await self._tiers.here(tier):
                    return Away(
                        f"the tier {tier} went away while {job.model} was moved", why,
                        "mount it and say it again: the version lies where it lay",
                    )  # fmt: skip
        return _told(error)

    async def _clear(self, job: MoveJob, work: Path, pieces: list[Piece], space: Reservation) -> None:
        await asyncio.to_thread(shutil.rmtree, work, True)
        await self._tiers.ledger.release(space)
        for piece in pieces:
            self._busy.pop(piece.sha256, None)
        for tier in {job.from_tier, job.to_tier}:
            await self._tiers.publish(tier)
        await self._tell(job.name)

    def _progress(self, id: str, space: Reservation) -> Callable[[str, int], None]:
        """From any thread."""
        last: tuple[str, float] = ("", 0.0)
        rate = Rate()

        def progress(state: str, done: int) -> None:
            nonlocal last, rate
            if state == "copying":
                space.wrote = done
            now = time.monotonic()
            if state != last[0] or now - last[1] >= PROGRESS_S:
                if state != last[0]:  # each state counts its own bytes
                    rate = Rate()
                last = (state, now)
                rate.saw(done)
                bytes_s = rate.now
                self._loop.call_soon_threadsafe(lambda: self._set(id, state=state, bytes_done=done, rate=bytes_s))

        return progress

    async def _switch(self, effect: Effect, model: Model, pieces: list[Piece], space: Reservation) -> list[Piece]:
        """Each copy to its place and, in one transaction, each row over to it; what was moved."""
        work = self._objects.incoming_of(space.tier) / space.id

        def put(db: sqlite3.Connection) -> tuple[list[Piece], object, object]:
            stay(needs(db, self._uses, pieces, space.tier))  # somebody may need it here since it was looked at
            moved = [each for each in pieces if tables.rehouse(db, each.sha256, each.tier, space.tier)]
            if not moved:
                raise Conflict(f"{model.reference} is not there any more", "it was removed meanwhile")
            tables.release(db, space.id)
            made = sorted({pair for each in moved for pair in versions.made_of(db, each.sha256)})
            for name, number in made:
                words = f"from {moved[0].tier} to {space.tier}"
                versions.note(db, name, self._clock(), effect.actor.name, "moved", number, words)
            told = {"tier": space.tier, "versions": [f"{name}@{number}" for name, number in made]}
            return moved, {"tier": moved[0].tier}, told

        async with self._objects.lock:
            placed: list[Piece] = []
            try:
                for piece in pieces:
                    if not self._objects.place(piece.sha256, space.tier).exists():
                        placed.append(piece)
                    await asyncio.to_thread(
                        self._objects.put, piece.sha256, space.tier, piece.parts, work / piece.sha256
                    )
                return await self._gate.act(
                    effect.actor, "models.tier", effect.object, effect.request, put, permission="models.move"
                )
            finally:
                places = await self._store.read(tables.places)
                for piece in placed:
                    if places.get(piece.sha256) != space.tier:
                        await asyncio.to_thread(self._objects.remove, piece.sha256, space.tier)

    async def _free(self, job: MoveJob, model: Model, moved: list[Piece], tier: str) -> None:
        """Remove the old copies, once no engine is about to open them: what one has open it keeps."""
        self._set(job.id, state="freeing", bytes_done=job.bytes_total, rate=0.0)
        while self.loading() & {model.reference}:
            if self._closing:  # the next start removes them
                return
            await asyncio.sleep(FREE_S)
        async with self._objects.lock:
            places, left = await self._store.read(tables.places), 0
            for piece in moved:
                if places.get(piece.sha256) != piece.tier and self._objects.place(piece.sha256, tier).exists():
                    await asyncio.to_thread(self._objects.remove, piece.sha256, piece.tier)
                    left += await asyncio.to_thread(self._objects.left, piece.sha256, piece.tier)
        self._set(job.id, left_bytes=left)


def _told(error: Exception) -> CorralError:
    """Why a move broke."""
    if isinstance(error, OSError):
        return fulldisk.fault(error, "the move failed", "the tier's disk")
    return error if isinstance(error, CorralError) else Failed("the move failed", str(error))


def said(job: MoveJob) -> str:
    """How far a move is."""
    part = f" {100 * job.bytes_done // job.bytes_total} %" if job.bytes_total and job.bytes_done else ""
    return f"{job.state}{part}"


async def whole(work: Awaitable[T]) -> T:
    """What `work` gives, also where the caller is cancelled: that is told when it has ended."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise
